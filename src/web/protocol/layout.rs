//! How a value of Rust lies in Gradio's positional `data`, decided by its JSON schema.
//!
//! A struct's fields are parameters of their own, in order of declaration; so are the items of a
//! tuple. Everything else is one parameter, and `()` is none.

use schemars::Schema;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::files::json::is_file;
use crate::handler::codec::Json;

/// The layout of an input or an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Nothing,
    One,
    Tuple(usize),
    /// The names of the fields, in order.
    Fields(Vec<String>),
}

/// Positional data that fits no input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrongCount {
    pub expected: usize,
    pub given: usize,
}

impl Layout {
    /// The layout of an input.
    pub fn of_input(schema: &Schema) -> Self {
        match Self::of_output(schema) {
            // A file is one thing, whatever its JSON is made of.
            Layout::One if is_file(schema.as_value()) => return Layout::One,
            Layout::One => {}
            layout => return layout,
        }
        match schema.get("properties") {
            Some(Value::Object(fields)) if !fields.is_empty() => {
                Layout::Fields(fields.keys().cloned().collect())
            }
            _ if is_empty_struct(schema) => Layout::Fields(Vec::new()),
            _ => Layout::One,
        }
    }

    /// The layout of an output: a struct is one value there, as a dict is in Gradio.
    pub fn of_output(schema: &Schema) -> Self {
        if let Some(Value::Array(items)) = schema.get("prefixItems") {
            return Layout::Tuple(items.len());
        }
        match schema.get("type") {
            Some(Value::String(kind)) if kind == "null" => Layout::Nothing,
            _ => Layout::One,
        }
    }

    pub fn parameters(&self) -> usize {
        match self {
            Layout::Nothing => 0,
            Layout::One => 1,
            Layout::Tuple(items) => *items,
            Layout::Fields(names) => names.len(),
        }
    }

    /// Whether so many values are an input. Fields left out at the end keep their defaults.
    pub fn fits(&self, given: usize) -> Result<(), WrongCount> {
        let expected = self.parameters();
        let fits = match self {
            Layout::Fields(_) => given <= expected,
            _ => given == expected,
        };
        if fits { Ok(()) } else { Err(WrongCount { expected, given }) }
    }

    /// The input, from an argument for each parameter or for the first ones.
    pub fn json<'a>(&'a self, arguments: &[Option<&'a RawValue>]) -> Json<'a> {
        let mut given = arguments.iter().copied();
        match self {
            Layout::Nothing => Json::Nothing,
            Layout::One => given.flatten().next().map_or(Json::Nothing, Json::Whole),
            Layout::Tuple(_) => Json::Items(given.flatten().collect()),
            Layout::Fields(names) => {
                let fields = names.iter().zip(&mut given);
                Json::Fields(fields.filter_map(|(name, raw)| Some((&**name, raw?))).collect())
            }
        }
    }

    /// The output as positional data.
    pub fn split(&self, value: Value) -> Vec<Value> {
        match (self, value) {
            (Layout::Nothing, _) => Vec::new(),
            (Layout::Tuple(_), Value::Array(items)) => items,
            (_, value) => vec![value],
        }
    }

    /// The number of the parameter that a path into the joined value leads through.
    pub fn position(&self, path: &str) -> Option<usize> {
        if *self == Layout::One {
            return Some(0);
        }
        let first = path.split(['.', '[', ']']).find(|part| !part.is_empty())?;
        match self {
            Layout::Fields(names) => names.iter().position(|name| name == first),
            Layout::Tuple(items) => first.parse().ok().filter(|position| position < items),
            Layout::One | Layout::Nothing => None,
        }
    }
}

/// Whether a schema is that of a struct without fields. Maps describe their values.
fn is_empty_struct(schema: &Schema) -> bool {
    let has = |key| schema.get(key).is_some_and(|value| *value != Value::Bool(false));
    let others = ["additionalProperties", "patternProperties", "propertyNames", "$ref"];
    let combined = ["allOf", "anyOf", "oneOf", "enum", "const"];
    schema.get("type").is_some_and(|kind| kind == "object")
        && !others.into_iter().chain(combined).any(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemars::JsonSchema;
    use schemars::schema_for;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Prompt {
        text: String,
        #[serde(default)]
        steps: u32,
        area: Option<(u32, u32)>,
    }

    #[test]
    fn fields_stand_in_order_of_declaration() {
        let layout = Layout::of_input(&schema_for!(Prompt));
        assert_eq!(layout, Layout::Fields(vec!["text".into(), "steps".into(), "area".into()]));
        let raw = |text| serde_json::from_str::<&RawValue>(text).unwrap();
        let json = layout.json(&[Some(raw("1")), None, Some(raw("[2, 3]"))]);
        let Json::Fields(fields) = json else { panic!("{json:?}") };
        let fields: Vec<_> = fields.into_iter().map(|(name, raw)| (name, raw.get())).collect();
        assert_eq!(fields, [("text", "1"), ("area", "[2, 3]")]);
        assert_eq!(layout.fits(2), Ok(()));
        assert_eq!(layout.fits(4), Err(WrongCount { expected: 3, given: 4 }));
        assert_eq!(layout.position("steps"), Some(1));
        assert_eq!(layout.position("area[1]"), Some(2));
        assert_eq!(layout.position("."), None);
    }

    #[test]
    fn tuples_scalars_and_nothing() {
        assert_eq!(Layout::of_input(&schema_for!((u8, String))), Layout::Tuple(2));
        assert_eq!(Layout::of_input(&schema_for!(Vec<u8>)), Layout::One);
        assert_eq!(
            Layout::of_input(&schema_for!(std::collections::HashMap<String, u8>)),
            Layout::One
        );
        assert_eq!(Layout::of_input(&schema_for!(())), Layout::Nothing);
        assert_eq!(Layout::Tuple(2).fits(2), Ok(()));
        assert_eq!(Layout::One.fits(0), Err(WrongCount { expected: 1, given: 0 }));
        assert_eq!(Layout::Tuple(2).position("[1]"), Some(1));
    }

    #[test]
    fn a_struct_without_fields_has_no_parameter() {
        #[derive(Deserialize, JsonSchema)]
        struct Empty {}
        #[derive(Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        struct Strict {}
        #[derive(Deserialize, JsonSchema)]
        #[allow(dead_code)]
        struct Anything {
            #[serde(flatten)]
            all: std::collections::HashMap<String, u8>,
        }
        let none = Layout::Fields(Vec::new());
        assert_eq!(Layout::of_input(&schema_for!(Empty)), none);
        assert_eq!(Layout::of_input(&schema_for!(Strict)), none);
        assert_eq!((none.parameters(), none.fits(0)), (0, Ok(())));
        assert_eq!(Layout::of_input(&schema_for!(Anything)), Layout::One);
        let map = schema_for!(serde_json::Map<String, Value>);
        assert_eq!(Layout::of_input(&map), Layout::One);
        let map = schema_for!(std::collections::HashMap<u8, u8>);
        assert_eq!(Layout::of_input(&map), Layout::One);
        assert_eq!(Layout::of_input(&schema_for!(Value)), Layout::One);
    }

    #[test]
    fn a_struct_is_one_output() {
        let layout = Layout::of_output(&schema_for!(Prompt));
        assert_eq!(layout.split(json!({"text": "a"})), [json!({"text": "a"})]);
        assert_eq!(Layout::of_output(&schema_for!((u8, u8))).split(json!([1, 2])), [1, 2]);
        assert!(Layout::of_output(&schema_for!(())).split(Value::Null).is_empty());
    }
}
