//! A listener's validator, with its input's type erased.

use std::any::{TypeId, type_name};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::input::Input;
use crate::event::guarded::discard_payload;
use crate::event::refusal::Refusal;
use crate::event::validation::Validation;

type Check = dyn Fn(&Input) -> Option<Validation> + Send + Sync;

/// A listener's validator.
#[derive(Clone)]
pub(crate) struct Validator {
    /// The type that it takes.
    pub id: TypeId,
    pub name: &'static str,
    check: Arc<Check>,
}

impl Validator {
    pub fn new<I: Send + 'static>(
        check: impl Fn(&I) -> Validation + Send + Sync + 'static,
    ) -> Self {
        Validator {
            id: TypeId::of::<I>(),
            name: type_name::<I>(),
            check: Arc::new(move |input: &Input| input.get().map(&check)),
        }
    }

    /// Validates an input. A validator that panics refuses it.
    pub fn check(&self, input: &Input) -> Result<(), Refusal> {
        match catch_unwind(AssertUnwindSafe(|| (self.check)(input))) {
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
