//! What somebody may have meant who named something that isn't there.

/// The name that is nearest to a wrong one, if it is near enough to have been meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let distances = names.into_iter().map(|name| (distance(wrong, name), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= wrong.chars().count().max(3) / 3).then_some(name)
}

/// How many letters must be put in, left out or changed, or exchanged with the next one.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Rows of the usual table: the last but one, the last, and this one.
    let (mut before, mut last) = (Vec::new(), (0..=to.len()).collect::<Vec<usize>>());
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let mut best = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == to[j - 1] && from[i - 1] == *b {
                let exchanged: &Vec<usize> = &before;
                best = best.min(exchanged[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_near_and_other_names_are_not() {
        let names = ["gpu", "render", "gpu_queue"];
        for (wrong, meant) in [
            ("gppu", Some("gpu")),
            ("gup", Some("gpu")),
            ("rendrr", Some("render")),
            ("gpu_que", Some("gpu_queue")),
            ("gpu-queue", Some("gpu_queue")),
            ("cpu", Some("gpu")),
            ("upload", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, names), meant, "{wrong}");
        }
        assert_eq!(nearest("gpu", []), None);
        assert_eq!(
            (distance("ab", "ba"), distance("", "abc"), distance("kitten", "sitting")),
            (1, 3, 3)
        );
    }
}
