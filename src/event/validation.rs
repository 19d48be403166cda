//! What a listener's validator finds wrong with an input, before it waits in any queue.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a validator found, parameter by parameter; as Gradio's `gr.validate`.
///
/// ```
/// use now_serving::{Listener, Validation};
/// use schemars::JsonSchema;
/// use serde::Deserialize;
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Prompt { text: String, steps: u32 }
///
/// fn check(prompt: &Prompt) -> Validation {
///     Validation::new()
///         .check("text", !prompt.text.is_empty(), "Say what to paint.")
///         .check("steps", prompt.steps <= 100, "At most 100.")
/// }
///
/// let paint = async |prompt: Prompt| Ok::<_, String>(prompt.text);
/// let listener = Listener::new("paint", paint).validator(check);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validation {
    complaints: Vec<(String, String)>,
}

impl Validation {
    /// Nothing found yet.
    pub fn new() -> Self {
        Validation::default()
    }

    /// Complains about a parameter unless something holds.
    pub fn check(
        mut self,
        parameter: impl Into<String>,
        holds: bool,
        message: impl Into<String>,
    ) -> Self {
        if !holds {
            self.complaints.push((parameter.into(), message.into()));
        }
        self
    }

    /// Whether there is nothing to complain about.
    pub fn is_valid(&self) -> bool {
        self.complaints.is_empty()
    }

    /// Each parameter that is wrong, with what is wrong about it.
    pub fn complaints(&self) -> impl Iterator<Item = (&str, &str)> {
        self.complaints.iter().map(|(parameter, message)| (parameter.as_str(), message.as_str()))
    }
}

impl fmt::Display for Validation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (parameter, message)) in self.complaints().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{parameter}: {message}")?;
        }
        Ok(())
    }
}
