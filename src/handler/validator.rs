//! A listener's validator, with its input's type erased.

use std::any::{TypeId, type_name};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::input::Input;
use crate::event::guarded::discard_payload;
use crate::event::refusal::Refusal;
use crate::event::validation::Validation;

/// A function that validates inputs, for [`Listener::validator`](crate::Listener::validator):
/// `Fn(&Input) -> Validation`, or with the user whose event it is
/// `Fn(&Input, Option<&str>) -> Validation`.
///
/// Implemented for every such function; not to be implemented by hand.
#[diagnostic::on_unimplemented(
    message = "this is no validator",
    label = "should be `fn(&Input) -> Validation` or `fn(&Input, Option<&str>) -> Validation`",
    note = "a closure must name the type of its input: `|prompt: &Prompt| ..`"
)]
pub trait Validate<Input, Extras>: Send + Sync + 'static {
    #[doc(hidden)]
    fn validate(&self, input: &Input, user: Option<&str>) -> Validation;
}

impl<F, I> Validate<I, ()> for F
where
    F: Fn(&I) -> Validation + Send + Sync + 'static,
{
    fn validate(&self, input: &I, _: Option<&str>) -> Validation {
        self(input)
    }
}

impl<F, I> Validate<I, (Option<&'static str>,)> for F
where
    F: Fn(&I, Option<&str>) -> Validation + Send + Sync + 'static,
{
    fn validate(&self, input: &I, user: Option<&str>) -> Validation {
        self(input, user)
    }
}

type Check = dyn Fn(&Input, Option<&str>) -> Option<Validation> + Send + Sync;

/// A listener's validator.
#[derive(Clone)]
pub(crate) struct Validator {
    /// The type that it takes.
    pub id: TypeId,
    pub name: &'static str,
    check: Arc<Check>,
}

impl Validator {
    pub fn new<I: Send + 'static, X>(check: impl Validate<I, X>) -> Self {
        Validator {
            id: TypeId::of::<I>(),
            name: type_name::<I>(),
            check: Arc::new(move |input: &Input, user: Option<&str>| {
                input.get().map(|input| check.validate(input, user))
            }),
        }
    }

    /// Validates an input of a user. A validator that panics refuses it.
    pub fn check(&self, input: &Input, user: Option<&str>) -> Result<(), Refusal> {
        match catch_unwind(AssertUnwindSafe(|| (self.check)(input, user))) {
            Ok(Some(found)) if !found.is_valid() => Err(Refusal::Invalid(found)),
            Ok(_) => Ok(()),
            Err(payload) => {
                discard_payload(payload);
                crate::logging::error!("the validator of {} panicked", self.name);
                Err(Refusal::ValidatorPanicked)
            }
        }
    }
}
