//! A listener as clients over HTTP see it.

use std::fmt;
use std::sync::Arc;

use actix_web::HttpRequest;
use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::parameters;
use super::parameters::Parameter;
use crate::files::json::is_file;
use crate::files::scope::reading;
use crate::files::store::Files;
use crate::handler::codec::InputError;
use crate::handler::codec::brief::beginning;
use crate::handler::codec::memory_allowance::Allowance;
use crate::handler::input::Input;
use crate::queue::listener_ref::ListenerRef;
use crate::web::auth::guard::Caller;
use crate::web::base_url::root_url_of_api;
use crate::web::body::json;
use crate::web::body::json::Data;
use crate::web::body::size::is_large;
use crate::web::cache::{Cache, Kept, Key};
use crate::web::event_data::RawEventData;
use crate::web::listener_options::{ApiVisibility, HttpOptions};
use crate::web::protocol::encoder::{Audience, Encoder};
use crate::web::protocol::layout::Layout;
use crate::web::rejection::{Detail, Rejection};
use crate::web::request::Request;

/// A listener with its parameters and its results.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// Its `fn_index`.
    pub number: u64,
    pub listener_ref: Arc<ListenerRef>,
    pub http: HttpOptions,
    pub input: Layout,
    pub output: Layout,
    pub parameters: Vec<Parameter>,
    /// The schemas of the outputs.
    pub returns: Vec<Value>,
    /// The results that it keeps, if it does.
    pub cache: Option<Arc<Cache>>,
    /// Some output is a file, or holds one.
    gives_files: bool,
    /// The doc comment of the input's type.
    comment: Option<String>,
}

/// A call's arguments, ready to be submitted.
pub(crate) struct Prepared {
    input: Input,
    /// By which its result is kept, where results are.
    key: Option<Key>,
    /// To drop it may take long.
    large: bool,
}

impl Prepared {
    /// The kept result of the same input.
    pub fn kept(&self, endpoint: &Endpoint) -> Option<Arc<Kept>> {
        endpoint.cache.as_ref()?.find(self.key.as_ref()?)
    }

    /// The input, and where its result is to be kept.
    pub fn split(mut self, endpoint: &Endpoint) -> (Input, Option<(Arc<Cache>, Key)>) {
        (self.take(), endpoint.cache.clone().zip(self.key))
    }

    /// The input itself.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// Gives something with it.
    pub fn give<T: Send + Sync + 'static>(&mut self, value: T) {
        self.input = self.take().with(value);
    }

    fn take(&mut self) -> Input {
        std::mem::replace(&mut self.input, Input::new(()))
    }
}

impl Drop for Prepared {
    /// A large input that isn't submitted goes on a thread that may block.
    fn drop(&mut self) {
        if self.large
            && self.input.get::<()>().is_none()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let input = self.take();
            runtime.spawn_blocking(move || drop(input));
        }
    }
}

/// Arguments that are no input of their listener.
pub(crate) enum WrongInput {
    /// What is wrong, for the client.
    Invalid(Box<Detail>),
    /// So many bytes of JSON would take too much memory.
    TooMuch(usize),
}

impl From<WrongInput> for Rejection {
    fn from(wrong: WrongInput) -> Self {
        match wrong {
            WrongInput::Invalid(detail) => Rejection::invalid(*detail),
            WrongInput::TooMuch(bytes) => json::too_much(bytes),
        }
    }
}

impl Endpoint {
    pub fn new(number: u64, listener_ref: Arc<ListenerRef>) -> Self {
        let http = listener_ref.extensions.get::<HttpOptions>().cloned().unwrap_or_default();
        let (input_schema, output_schema) =
            ((listener_ref.input.schema)(), (listener_ref.output.schema)());
        let input = Layout::of_input(&input_schema);
        let output = Layout::of_output(&output_schema);
        let (input_schema, output_schema) = (input_schema.as_value(), output_schema.as_value());
        // That of a scalar is its parameter's.
        let comment = input_schema.get("description").and_then(Value::as_str);
        let comment = comment.filter(|_| matches!(input, Layout::Fields(_))).map(String::from);
        let returns = parameters::returns(output_schema, &output);
        Endpoint {
            number,
            parameters: parameters::parameters(input_schema, &input),
            gives_files: returns.iter().any(holds_file),
            returns,
            comment,
            cache: http.cache.map(|entries| Arc::new(Cache::new(entries))),
            listener_ref,
            http,
            input,
            output,
        }
    }

    pub fn is_callable(&self) -> bool {
        self.http.visibility != ApiVisibility::Private
    }

    pub fn description(&self) -> Option<&str> {
        self.http.description.as_deref().or(self.comment.as_deref())
    }

    /// How updates are shown to the client of a request.
    pub fn audience(
        &self,
        show_error: bool,
        root_path: Option<&str>,
        request: &HttpRequest,
    ) -> Audience {
        let root = || root_url_of_api(request, root_path);
        let files_at = self.gives_files.then(|| format!("{}/gradio_api/file=", root()).into());
        Audience { show_error, files_at }
    }

    /// The names of its parameters, in order.
    pub fn parameter_names(&self) -> Vec<&str> {
        self.parameters.iter().map(|parameter| parameter.name.as_str()).collect()
    }

    /// The encoder of one event's updates.
    pub fn encoder(&self, audience: Audience) -> Encoder {
        let listener_ref = &self.listener_ref;
        Encoder::new(listener_ref.api_name.clone(), self.output.clone(), audience)
            .durable(listener_ref.durability.is_some())
    }

    /// The `event_data` of a call, where its handler takes it.
    pub fn event_data(&self, given: Option<&RawValue>) -> Option<RawEventData> {
        let wanted = given.filter(|_| self.listener_ref.options.needs.of_event::<RawEventData>());
        wanted.map(|json| RawEventData(json.to_owned()))
    }

    /// Gives with an input what its handler takes of the request.
    pub fn accompany(
        &self,
        input: &mut Prepared,
        request: &HttpRequest,
        event_data: Option<RawEventData>,
    ) {
        let takes_request = self.listener_ref.options.needs.of_event::<Request>();
        if !takes_request && event_data.is_none() {
            return;
        }
        let mut accompanied = input.take();
        if takes_request {
            accompanied = accompanied.with(Request::of(request));
        }
        if let Some(event_data) = event_data {
            accompanied = accompanied.with(event_data);
        }
        input.input = accompanied;
    }

    /// Refuses a caller whom the listener doesn't allow. Asked by whatever makes an input: without one, no
    /// event begins and no kept result is found.
    fn admit(&self, caller: &Caller) -> Result<(), Rejection> {
        match self.listener_ref.allows(caller.0.as_deref()) {
            true => Ok(()),
            false => Err(Rejection::forbidden(&self.listener_ref.api_name)),
        }
    }

    /// The typed input of positional data.
    ///
    /// # Errors
    /// When the caller may not call it, or the data can't be read.
    pub fn input_from_positional(
        &self,
        data: &Data<'_>,
        files: &Files,
        caller: &Caller,
    ) -> Result<Result<Prepared, WrongInput>, Rejection> {
        self.admit(caller)?;
        let (values, given) = data.values(self.input.parameters())?;
        if let Err(wrong) = self.input.fits(given) {
            let (listener, expected) = (&self.listener_ref.api_name, wrong.expected);
            let message = format!("/{listener} takes {expected} inputs, and {given} were given");
            let detail = Detail::new("value_error", &["data"], message);
            return Ok(Err(WrongInput::Invalid(Box::new(detail.of_parameter("data")))));
        }
        let arguments = values.into_iter().map(Some).collect();
        Ok(self.input_from(arguments, files, caller))
    }

    /// The typed input of named arguments, the text of a JSON object.
    pub fn input_from_named(
        &self,
        text: &str,
        files: &Files,
        caller: &Caller,
    ) -> Result<Prepared, Rejection> {
        self.admit(caller)?;
        let arguments = json::with_seed(Named(&self.parameters), text)?.map_err(|name| {
            let message = format!("/{} takes no {name}", self.listener_ref.api_name);
            let detail = Detail::new("extra_forbidden", &[&name], message);
            Rejection::invalid(detail.of_parameter(&name))
        })?;
        let missing = arguments.iter().position(Option::is_none);
        if let (Some(missing), false) = (missing, matches!(self.input, Layout::Fields(_))) {
            let name = &self.parameters[missing].name;
            let detail = Detail::new("missing", &[name], format!("{name} is missing"));
            return Err(Rejection::invalid(detail.of_parameter(name)));
        }
        Ok(self.input_from(arguments, files, caller)?)
    }

    /// The typed input of an argument for each parameter, or for the first ones.
    fn input_from(
        &self,
        mut arguments: Vec<Option<&RawValue>>,
        files: &Files,
        caller: &Caller,
    ) -> Result<Prepared, WrongInput> {
        arguments.resize(self.parameters.len(), None);
        if let Layout::Fields(_) = self.input {
            for (argument, parameter) in arguments.iter_mut().zip(&self.parameters) {
                argument.take_if(|value| parameter.is_left_out(value.get()));
            }
        }
        let given = arguments.iter().flatten();
        let bytes = given.fold(0, |bytes, argument| bytes + argument.get().len());
        // What a handler gives may depend on its user.
        let key = self.cache.as_ref().map(|cache| cache.key(caller.0.as_deref(), &arguments));
        let allowance = Allowance::of_json(bytes);
        let json = self.input.json(&arguments);
        let input = reading(files, || (self.listener_ref.input.from_json)(json, &allowance));
        let input = input.map_err(|error| match error.too_large {
            true => WrongInput::TooMuch(bytes),
            false => WrongInput::Invalid(Box::new(self.wrong_input(error))),
        })?;
        Ok(Prepared { input, key, large: is_large(bytes) })
    }

    fn wrong_input(&self, InputError { path, message, .. }: InputError) -> Detail {
        let detail = Detail::new("value_error", &["data"], message);
        match self.input.position(&path) {
            Some(position) => {
                let detail = detail.at(position.into());
                let name = &self.parameters[position].name;
                // Listed separately there.
                let detail = detail.of_parameter(name);
                match self.input {
                    Layout::Fields(_) => detail.prefix(&format!("{name}: ")),
                    _ => detail,
                }
            }
            None => detail.of_parameter("data"),
        }
    }
}

/// Reads named arguments in the parameters' order, whatever their own order is. Of an argument that
/// is there twice, the last one counts. Gives the name of one that belongs to no parameter.
#[derive(Clone, Copy)]
struct Named<'p>(&'p [Parameter]);

type Arguments<'de> = Vec<Option<&'de RawValue>>;

impl<'de> DeserializeSeed<'de> for Named<'_> {
    type Value = Result<Arguments<'de>, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Named<'_> {
    type Value = Result<Arguments<'de>, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of named inputs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut arguments = vec![None; self.0.len()];
        let mut unknown = None;
        while let Some(name) = entries.next_key_seed(Name(self.0))? {
            match name {
                Ok(at) => arguments[at] = Some(entries.next_value()?),
                Err(name) => {
                    unknown.get_or_insert(name);
                    entries.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(unknown.map_or(Ok(arguments), Err))
    }
}

/// The number of the parameter of a name, or the beginning of the name.
struct Name<'p>(&'p [Parameter]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of an input")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        let position = self.0.iter().position(|parameter| parameter.name == name);
        Ok(position.ok_or_else(|| beginning(name).to_string()))
    }
}

/// Whether a file is described anywhere in a schema.
fn holds_file(schema: &Value) -> bool {
    is_file(schema)
        || match schema {
            Value::Object(fields) => fields.values().any(holds_file),
            Value::Array(items) => items.iter().any(holds_file),
            _ => false,
        }
}
