//! The names that files may have.

/// The longest name, in bytes: file systems take 255.
const MAX_LEN: usize = 200;

/// The longest ending that is kept when a name is cut, in bytes.
const MAX_ENDING_LEN: usize = 20;

/// A name for the last part of a path that a client sent: no separators, nothing that a shell, a
/// header or a file system takes for more than a name. As Gradio, keeps letters, digits and a few
/// signs.
pub(super) fn tidy(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let plain = |c: &char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ',' | ' ');
    let name: String = last.chars().filter(plain).collect();
    // A point at the beginning hides a file; ours are those.
    let name = shorten(name.trim().trim_start_matches(['.', ' ']));
    // Once more: it may have been cut right after a blank.
    match name.trim_end() {
        "" => "file".into(),
        name => name.into(),
    }
}

/// Cuts before the ending, so that the kind of file stays known.
fn shorten(name: &str) -> String {
    if name.len() <= MAX_LEN {
        return name.into();
    }
    let point = name.rfind('.').filter(|point| name.len() - point <= MAX_ENDING_LEN);
    let (stem, ending) = name.split_at(point.unwrap_or(name.len()));
    let mut stem = stem.to_string();
    while stem.len() + ending.len() > MAX_LEN {
        stem.pop();
    }
    stem + ending
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_name_goes() {
        for (given, kept) in [
            ("a b.txt", "a b.txt"),
            ("../../etc/passwd", "passwd"),
            (r"C:\pictures\fox.png", "fox.png"),
            ("..", "file"),
            ("", "file"),
            (".htaccess", "htaccess"),
            ("a\r\nSet-Cookie: b", "aSet-Cookie b"),
            ("<script>.html", "script.html"),
            ("Füchse, 狐.png", "Füchse, 狐.png"),
        ] {
            assert_eq!(tidy(given), kept, "{given:?}");
        }
        let cut_after_a_blank = "a".repeat(199) + " " + &"b".repeat(50);
        assert_eq!(tidy(&cut_after_a_blank), "a".repeat(199));
        let long = tidy(&("ä".repeat(300) + ".tar.gz"));
        assert!(long.len() <= MAX_LEN && long.ends_with(".gz"));
    }

    /// Texts of all kinds, and long ones of what matters when they are cut.
    fn names() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a ä.]{150,300}", "[a. ]{180,205}[ .a]{0,30}"]
    }

    proptest! {
        #[test]
        fn a_tidy_name_is_one_plain_part_of_a_path(name in names()) {
            let tidied = tidy(&name);
            prop_assert!(!tidied.is_empty() && tidied.len() <= MAX_LEN);
            prop_assert!(!tidied.starts_with('.') && !tidied.contains(['/', '\\', '\0', '\n', '"']));
            prop_assert_eq!(tidy(&tidied), tidied);
        }
    }
}
