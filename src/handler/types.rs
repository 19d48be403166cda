//! What the types of a handler's input and output must be able to do.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A type that a handler can take as its input: one that is read from JSON, and described to clients.
///
/// Every type that derives `Deserialize` and `JsonSchema`, is `Send` and borrows nothing; not to be
/// implemented by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the input of a handler",
    label = "`{Self}` can't be read from JSON, or has no JSON schema, or isn't `Send`",
    note = "derive what it lacks: `#[derive(serde::Deserialize, schemars::JsonSchema)]`",
    note = "the input is a handler's first argument, before `EventContext`, `Slot<R>`, `State<T>` and other extras; a handler without any takes `_: ()` there"
)]
pub trait ListenerInput: DeserializeOwned + JsonSchema + Send + 'static {}

// So that the compiler names our trait, with what to write, and not the first part that is missing.
#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + JsonSchema + Send + 'static> ListenerInput for T {}

/// A type that a handler can give: one that is written as JSON, and described to clients.
///
/// Every type that derives `Serialize` and `JsonSchema`, is `Send` and `Sync` and borrows nothing; not
/// to be implemented by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the output of a handler",
    label = "`{Self}` can't be written as JSON, or has no JSON schema, or isn't `Send` and `Sync`",
    note = "derive what it lacks: `#[derive(serde::Serialize, schemars::JsonSchema)]`"
)]
pub trait ListenerOutput: Serialize + JsonSchema + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + JsonSchema + Send + Sync + 'static> ListenerOutput for T {}
