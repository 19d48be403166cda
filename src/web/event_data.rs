//! What a client says of the thing on its page that caused an event.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::event::failure::{Failure, UserError};
use crate::handler::codec::memory_allowance::Allowance;
use crate::handler::codec::{Json, read};
use crate::handler::extract::{Extract, sealed};
use crate::handler::needs::{NamedType, Needs};
use crate::handler::run_context::RunContext;

/// What a client says of the thing on its page that caused the event, a `T`: the `event_data` of a
/// request to `queue/join` or `run`. As Gradio's `gr.EventData` and its kin, `gr.SelectData` say.
///
/// A handler takes it as an argument after its input. An event without `event_data` fails, unless the
/// handler takes an `Option<EventData<T>>`; so does one whose `event_data` is no `T`, with a message that
/// the client is shown. Not for [`Listener::batch`](crate::Listener::batch) or
/// [`Listener::cache`](crate::Listener::cache).
///
/// ```
/// use now_serving::{EventData, Listener};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Select { index: usize }
///
/// async fn zoom(picture: String, EventData(select): EventData<Select>) -> Result<String, String> {
///     Ok(format!("{picture} at {}", select.index))
/// }
///
/// let listener = Listener::new("zoom", zoom);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventData<T>(pub T);

/// As the client sent it: only the handler knows its type.
pub(crate) struct RawEventData(pub Box<RawValue>);

impl<T> sealed::Sealed for EventData<T> {}

impl<T> sealed::Sealed for Option<EventData<T>> {}

impl<T: DeserializeOwned + 'static> Extract for EventData<T> {
    fn needs(needs: &mut Needs) {
        needs.event.push(NamedType::called::<RawEventData>("EventData"));
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let given = Option::<EventData<T>>::extract(run)?;
        given.ok_or_else(|| UserError::new("event_data is missing").into())
    }
}

impl<T: DeserializeOwned + 'static> Extract for Option<EventData<T>> {
    fn needs(needs: &mut Needs) {
        EventData::<T>::needs(needs);
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        let Some(RawEventData(json)) = run.of_event() else { return Ok(None) };
        let data = read(Json::Whole(json), &Allowance::of_json(json.get().len()));
        data.map(|data| Some(EventData(data))).map_err(|error| {
            let place = if error.path == "." { String::new() } else { format!(".{}", error.path) };
            UserError::new(format!("event_data{place}: {}", error.message)).into()
        })
    }
}
