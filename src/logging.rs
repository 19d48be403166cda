//! What the library logs, on one line each: texts come from handlers and clients, which must not
//! inject lines into the service's log, nor control sequences into the terminal that shows it.

use std::fmt::{self, Display, Write};

/// Writes control characters, and those that change the direction of text, as their codes.
pub(crate) struct OneLine<T>(pub T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escape(f), "{}", self.0)
    }
}

struct Escape<'a, 'f>(&'a mut fmt::Formatter<'f>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_hostile) {
            let (plain, from) = rest.split_at(at);
            self.0.write_str(plain)?;
            let mut characters = from.chars();
            if let Some(hostile) = characters.next() {
                write!(self.0, "{}", hostile.escape_default())?;
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
    }
}

fn is_hostile(c: char) -> bool {
    let breaks_lines = matches!(c, '\u{2028}' | '\u{2029}');
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || breaks_lines || turns
}

/// As [`log::log!`], on one line.
macro_rules! log {
    ($level:expr, $($text:tt)+) => {
        ::log::log!($level, "{}", $crate::logging::OneLine(::std::format_args!($($text)+)))
    };
}

/// As [`log::error!`], on one line.
macro_rules! error {
    ($($text:tt)+) => { $crate::logging::log!(::log::Level::Error, $($text)+) };
}

/// As [`log::warn!`], on one line.
macro_rules! warning {
    ($($text:tt)+) => { $crate::logging::log!(::log::Level::Warn, $($text)+) };
}

/// As [`log::info!`], on one line.
macro_rules! info {
    ($($text:tt)+) => { $crate::logging::log!(::log::Level::Info, $($text)+) };
}

/// As [`log::debug!`], on one line.
macro_rules! debug {
    ($($text:tt)+) => { $crate::logging::log!(::log::Level::Debug, $($text)+) };
}

// `warn` is an attribute of the language, too.
pub(crate) use {debug, error, info, log, warning as warn};

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::OneLine;

    #[test]
    fn a_text_is_one_line_without_orders_for_a_terminal() {
        for (text, written) in [
            ("as it is: Füchse, 狐 \"quoted\" \\n", "as it is: Füchse, 狐 \"quoted\" \\n"),
            ("no\n[ERROR] forged", r"no\n[ERROR] forged"),
            ("\r\x1b[2Jgone\x07", r"\r\u{1b}[2Jgone\u{7}"),
            ("\u{85}\u{2028}\u{2029}", r"\u{85}\u{2028}\u{2029}"),
            ("\u{202e}txt.exe", r"\u{202e}txt.exe"),
        ] {
            assert_eq!(OneLine(text).to_string(), written);
            assert_eq!(OneLine(format_args!("{text}{}", 1)).to_string(), format!("{written}1"));
        }
    }

    /// Nothing of the library is logged around this.
    #[test]
    fn everything_is_logged_here() {
        fn search(directory: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    search(&path, found);
                } else if path.extension().is_some_and(|end| end == "rs")
                    && !path.ends_with("src/logging.rs")
                {
                    let text = fs::read_to_string(&path).unwrap();
                    let own = |line: &str| line.contains("logging::");
                    let around =
                        ["use log::", "log::error!", "log::warn!", "log::info!", "log::debug!"];
                    let lines = text.lines().filter(|line| {
                        !own(line) && around.iter().any(|around| line.contains(around))
                    });
                    found.extend(lines.map(|line| format!("{}: {line}", path.display())));
                }
            }
        }
        let mut found = Vec::new();
        search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert_eq!(found, [""; 0], "take the macros of crate::logging");
    }
}
