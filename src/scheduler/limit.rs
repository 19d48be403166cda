//! The concurrency limit, and the one rule that merges what several listeners declare.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How many events of one concurrency id run at once.
///
/// Builder methods take anything that converts into a limit: `2`, `None`, `Some(4)` or a `Limit`.
///
/// ```
/// use now_serving::Limit;
/// assert_eq!(Limit::from(2), Limit::Slots(2));
/// assert_eq!(Limit::from(None), Limit::Unlimited);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// At most this many events at once; 0 is refused where the limit is set.
    Slots(usize),
    /// Every event starts as soon as it comes.
    Unlimited,
}

impl Limit {
    /// The number of slots, `usize::MAX` for [`Limit::Unlimited`].
    pub(crate) fn slots(self) -> usize {
        match self {
            Limit::Slots(n) => n,
            Limit::Unlimited => usize::MAX,
        }
    }
}

impl From<usize> for Limit {
    fn from(slots: usize) -> Self {
        Limit::Slots(slots)
    }
}

impl From<Option<usize>> for Limit {
    fn from(slots: Option<usize>) -> Self {
        slots.map_or(Limit::Unlimited, Limit::Slots)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Limit::Slots(n) => write!(f, "{n}"),
            Limit::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// A number, or null for unlimited, as in Gradio's own configuration.
impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Limit::Slots(n) => serializer.serialize_some(n),
            Limit::Unlimited => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<usize>::deserialize(deserializer).map(Limit::from)
    }
}

/// What the listeners of one concurrency id agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merged {
    pub limit: Limit,
    /// Two listeners declared different limits; the lowest holds and a warning is due.
    pub conflict: bool,
}

/// Merges the declarations of the listeners that share a concurrency id.
///
/// A listener that declares nothing doesn't count, of several explicit limits the lowest holds,
/// and the default holds where none is explicit. Gradio differs: there the default counts as a
/// declaration of every silent listener and lowers an explicit 2 to 1.
pub(crate) fn merge(declared: impl IntoIterator<Item = Option<Limit>>, default: Limit) -> Merged {
    let mut lowest: Option<Limit> = None;
    let mut conflict = false;
    for limit in declared.into_iter().flatten() {
        conflict |= lowest.is_some_and(|l| l != limit);
        lowest = Some(match lowest {
            Some(l) if l.slots() <= limit.slots() => l,
            _ => limit,
        });
    }
    Merged { limit: lowest.unwrap_or(default), conflict }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Limit = Limit::Slots(1);

    #[test]
    fn a_silent_listener_does_not_lower_an_explicit_limit() {
        let merged = merge([Some(Limit::Slots(2)), None, None], ONE);
        assert_eq!(merged, Merged { limit: Limit::Slots(2), conflict: false });
    }

    #[test]
    fn the_lowest_of_several_explicit_limits_holds() {
        let merged = merge([Some(Limit::Slots(4)), Some(Limit::Slots(3)), None], ONE);
        assert_eq!(merged, Merged { limit: Limit::Slots(3), conflict: true });
        let merged = merge([Some(Limit::Unlimited), Some(Limit::Slots(9))], ONE);
        assert_eq!(merged, Merged { limit: Limit::Slots(9), conflict: true });
    }

    #[test]
    fn the_default_holds_where_nobody_declares() {
        assert_eq!(merge([None, None], ONE).limit, ONE);
        assert_eq!(merge([None], Limit::Unlimited).limit, Limit::Unlimited);
    }

    #[test]
    fn equal_declarations_are_no_conflict() {
        assert!(!merge([Some(ONE), Some(ONE)], Limit::Unlimited).conflict);
    }
}
