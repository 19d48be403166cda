//! Errors that don't repeat a long input: the client has it, and a text of it would take more memory
//! than the input itself.

use std::fmt;

use serde::de::{Error, Expected, Unexpected};

/// The longest text of an error, in bytes.
const MAX_LEN: usize = 500;

/// The maximum that an error quotes of a string, in bytes.
const QUOTED: usize = 60;

/// An error whose text is short, whatever is wrong.
#[derive(Debug)]
pub(crate) struct Brief(String);

impl Brief {
    /// A text, cut off after the maximum.
    pub fn of(text: impl fmt::Display) -> String {
        struct Short(String);
        impl fmt::Write for Short {
            fn write_str(&mut self, part: &str) -> fmt::Result {
                let room = MAX_LEN - self.0.len();
                if part.len() <= room {
                    self.0.push_str(part);
                    return Ok(());
                }
                self.0.push_str(up_to(part, room.saturating_sub(3)));
                self.0.push('…');
                // Nothing more is to be written.
                Err(fmt::Error)
            }
        }
        let mut short = Short(String::new());
        // An error means that it was cut off, or can't be formatted at all.
        let _ = fmt::write(&mut short, format_args!("{text}"));
        short.0
    }
}

impl fmt::Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Brief {}

/// The beginning of a string.
pub(crate) fn beginning(text: &str) -> &str {
    up_to(text, QUOTED)
}

/// At most so many bytes of a text.
fn up_to(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

impl Error for Brief {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Brief(Brief::of(message))
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Str(text) => Self::custom(format_args!(
                "invalid type: {}…, expected {expected}",
                Unexpected::Str(beginning(text))
            )),
            other => Self::custom(format_args!("invalid type: {other}, expected {expected}")),
        }
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match unexpected {
            Unexpected::Str(text) => Self::custom(format_args!(
                "invalid value: {}…, expected {expected}",
                Unexpected::Str(beginning(text))
            )),
            other => Self::custom(format_args!("invalid value: {other}, expected {expected}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_string_is_quoted_in_part() {
        let text = "é".repeat(10_000);
        let error = Brief::invalid_type(Unexpected::Str(&text), &"u32").to_string();
        assert_eq!(error, format!("invalid type: string \"{}\"…, expected u32", "é".repeat(30)));
        let error = Brief::custom(&text).to_string();
        assert!(error.len() <= MAX_LEN && error.ends_with("é…"), "{error}");
        assert_eq!(Brief::of("short"), "short");
    }
}
