//! What can be a handler: async functions, blocking functions, streams and batch functions, with
//! any of the extras that a run can give.

use super::context::EventContext;
use super::run_context::RunContext;
use super::session_state::State;
use super::slot::{ResourceType, Slot};
use crate::event::failure::Failure;

/// A function that takes an input and up to three extras: [`EventContext`], [`Slot`], [`State`].
///
/// Implemented for every `Fn(input, ..) -> Output`; not to be implemented by hand.
#[diagnostic::on_unimplemented(
    message = "this is no handler: its arguments are not an input, then up to three extras",
    label = "should be `fn(Input)`, or `fn(Input, Extra, ..)` with extras of `EventContext`, `Slot<R>` and `State<T>`",
    note = "a handler takes exactly one input, as its first argument; one that needs nothing takes `()`: `async fn now(_: ()) -> Result<u64, Error>`",
    note = "the handler of a `Listener::batch` takes a `Vec` of inputs first",
    note = "a closure must be `Fn`, `Clone`, `Send` and `Sync`, and name the type of its input: `async |prompt: Prompt| ..`"
)]
pub trait Handler<Input, Extras>: Clone + Send + Sync + 'static {
    /// What the function returns: a future, a result or a stream.
    type Output;

    #[doc(hidden)]
    fn call(&self, input: Input, extras: Extras) -> Self::Output;
}

macro_rules! handler {
    ($($extra:ident)*) => {
        impl<F, Input, Output, $($extra,)*> Handler<Input, ($($extra,)*)> for F
        where
            F: Fn(Input, $($extra),*) -> Output + Clone + Send + Sync + 'static,
        {
            type Output = Output;

            #[allow(non_snake_case)]
            fn call(&self, input: Input, ($($extra,)*): ($($extra,)*)) -> Output {
                self(input, $($extra),*)
            }
        }

        impl<$($extra: Extract),*> Extract for ($($extra,)*) {
            fn needs() -> Vec<ResourceType> {
                #[allow(unused_mut)]
                let mut needs = Vec::new();
                $(needs.extend($extra::needs());)*
                needs
            }

            fn takes_state() -> bool {
                false $(|| $extra::takes_state())*
            }

            #[allow(unused_variables)]
            fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
                Ok(($($extra::extract(run)?,)*))
            }
        }
    };
}

handler!();

handler!(A);

handler!(A B);

handler!(A B C);

/// What a handler can take besides its input. Sealed: [`EventContext`], [`Slot`],
/// [`State`], tuples of them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an extra argument of a handler",
    label = "a handler takes its input first, and then only `EventContext`, `Slot<R>` and `State<T>`",
    note = "write the input first: `async fn paint(prompt: Prompt, context: EventContext)`",
    note = "of several inputs make one: a struct whose fields they are, or a tuple"
)]
pub trait Extract: sealed::Sealed + Sized + 'static {
    #[doc(hidden)]
    fn needs() -> Vec<ResourceType>;

    #[doc(hidden)]
    fn takes_state() -> bool {
        false
    }

    #[doc(hidden)]
    fn extract(run: &RunContext<'_>) -> Result<Self, Failure>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::handler::context::EventContext {}
    impl<R> Sealed for crate::handler::slot::Slot<R> {}
    impl<T> Sealed for crate::handler::session_state::State<T> {}
    impl Sealed for () {}
    impl<A> Sealed for (A,) {}
    impl<A, B> Sealed for (A, B) {}
    impl<A, B, C> Sealed for (A, B, C) {}
}

impl Extract for EventContext {
    fn needs() -> Vec<ResourceType> {
        Vec::new()
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(EventContext::of(run))
    }
}

impl<R: 'static> Extract for Slot<R> {
    fn needs() -> Vec<ResourceType> {
        vec![ResourceType::of::<R>()]
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let resource = run.resource.and_then(|resource| resource.lend(run.slot));
        resource.ok_or_else(|| Failure::unexpected("the slot's resource is not there"))
    }
}

impl<T: Default + Send + 'static> Extract for State<T> {
    fn needs() -> Vec<ResourceType> {
        Vec::new()
    }

    fn takes_state() -> bool {
        true
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(run.session().map(|session| session.of()).unwrap_or_default())
    }
}
