//! What can be a handler: async functions, blocking functions, streams and batch functions, with
//! any of the extras that a run can give.

use super::context::EventContext;
use super::data::Data;
use super::needs::{NamedType, Needs};
use super::run_context::RunContext;
use super::session_state::State;
use super::slot::Slot;
use crate::event::failure::Failure;

/// A function that takes an input and up to six extras: [`EventContext`], [`Slot`], [`State`],
/// [`Data`], and with the feature `web` a `Request` and an `EventData`.
///
/// Implemented for every `Fn(input, ..) -> Output`; not to be implemented by hand.
#[diagnostic::on_unimplemented(
    message = "this is no handler: its arguments are not an input, then up to six extras",
    label = "should be `fn(Input)`, or `fn(Input, Extra, ..)` with extras of `EventContext`, `Slot<R>`, `State<T>`, `Data<T>`, `Request` and `EventData<T>`",
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
            #[allow(unused_variables)]
            fn needs(needs: &mut Needs) {
                $($extra::needs(needs);)*
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

handler!(A B C D);

handler!(A B C D E);

handler!(A B C D E G);

/// What a handler can take besides its input. Sealed: [`EventContext`], [`Slot`], [`State`],
/// [`Data`], with the feature `web` `Request` and `EventData` or an `Option` of one, and tuples of
/// them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an extra argument of a handler",
    label = "a handler takes its input first, and then only `EventContext`, `Slot<R>`, `State<T>`, `Data<T>`, `Request` and `EventData<T>`",
    note = "write the input first: `async fn paint(prompt: Prompt, context: EventContext)`",
    note = "of several inputs make one: a struct whose fields they are, or a tuple"
)]
pub trait Extract: sealed::Sealed + Sized + 'static {
    #[doc(hidden)]
    fn needs(needs: &mut Needs);

    #[doc(hidden)]
    fn extract(run: &RunContext<'_>) -> Result<Self, Failure>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::handler::context::EventContext {}
    impl<R> Sealed for crate::handler::slot::Slot<R> {}
    impl<T> Sealed for crate::handler::session_state::State<T> {}
    impl<T> Sealed for crate::handler::data::Data<T> {}
    impl Sealed for () {}
    impl<A> Sealed for (A,) {}
    impl<A, B> Sealed for (A, B) {}
    impl<A, B, C> Sealed for (A, B, C) {}
    impl<A, B, C, D> Sealed for (A, B, C, D) {}
    impl<A, B, C, D, E> Sealed for (A, B, C, D, E) {}
    impl<A, B, C, D, E, G> Sealed for (A, B, C, D, E, G) {}
}

impl Extract for EventContext {
    fn needs(_: &mut Needs) {}

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(EventContext::of(run))
    }
}

impl<R: 'static> Extract for Slot<R> {
    fn needs(needs: &mut Needs) {
        needs.slots.push(NamedType::of::<R>());
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let resource = run.resource.and_then(|resource| resource.lend(run.slot));
        resource.ok_or_else(|| Failure::unexpected("the slot's resource is not there"))
    }
}

impl<T: Default + Send + 'static> Extract for State<T> {
    fn needs(needs: &mut Needs) {
        needs.state = true;
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(run.session().map(|session| session.of()).unwrap_or_default())
    }
}

impl<T: Send + Sync + 'static> Extract for Data<T> {
    fn needs(needs: &mut Needs) {
        needs.data.push(NamedType::of::<T>());
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let data = run.extensions.get::<Data<T>>().cloned();
        data.ok_or_else(|| Failure::unexpected("the queue was not given the data"))
    }
}
