//! How a listener's input is made from JSON: straight from its bytes, by the input's own
//! `Deserialize`, with no tree in between.

pub(crate) mod brief;
pub(crate) mod counting_deserializer;
pub(crate) mod memory_allowance;

use std::any::{TypeId, type_name};

use schemars::{JsonSchema, Schema, schema_for};
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use super::input::Input;
use crate::handler::codec::brief::Brief;
use crate::handler::codec::counting_deserializer::Metered;
use crate::handler::codec::memory_allowance::Allowance;

/// The type of a listener's input, and how to make one from JSON. What makes JSON of one, for an
/// event that outlives its process, belongs in here, beside `from_json`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputType {
    pub id: TypeId,
    pub name: &'static str,
    pub schema: fn() -> Schema,
    pub from_json: fn(Json<'_>, &Allowance) -> Result<Input, InputError>,
}

impl InputType {
    pub fn of<I: DeserializeOwned + JsonSchema + Send + 'static>() -> Self {
        InputType {
            id: TypeId::of::<I>(),
            name: type_name::<I>(),
            schema: || schema_for!(I),
            from_json: |json, allowance| read::<I>(json, allowance).map(Input::new),
        }
    }
}

/// The type of a listener's output. It writes itself as JSON ([`Output`](crate::Output)); what makes
/// one from JSON again, for a result that outlives its process, belongs in here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputType {
    pub id: TypeId,
    pub name: &'static str,
    pub schema: fn() -> Schema,
}

impl OutputType {
    pub fn of<O: JsonSchema + 'static>() -> Self {
        OutputType { id: TypeId::of::<O>(), name: type_name::<O>(), schema: || schema_for!(O) }
    }
}

/// An input's JSON, in the pieces in which a client gave it.
#[derive(Clone, Debug)]
pub(crate) enum Json<'a> {
    Nothing,
    Whole(&'a RawValue),
    /// The items of a tuple.
    Items(Vec<&'a RawValue>),
    /// The fields of a struct, by name.
    Fields(Vec<(&'a str, &'a RawValue)>),
}

/// Why a value is no input, and where in it: a path such as `prompt.steps`.
#[derive(Clone, Debug)]
pub(crate) struct InputError {
    pub path: String,
    pub message: String,
    /// It would take more memory than it may.
    pub too_large: bool,
}

pub(crate) fn read<I: DeserializeOwned>(
    json: Json<'_>,
    allowance: &Allowance,
) -> Result<I, InputError> {
    // Few are wrong: where is found by reading once more.
    let whole = allowance.clone();
    I::deserialize(Metered::new(&json, allowance)).or_else(|error| match allowance.is_exceeded() {
        true => Err(InputError { path: String::new(), message: message(&error), too_large: true }),
        false => read_for_path(&json, &whole),
    })
}

fn read_for_path<I: DeserializeOwned>(
    json: &Json<'_>,
    allowance: &Allowance,
) -> Result<I, InputError> {
    serde_path_to_error::deserialize(Metered::new(json, allowance)).map_err(|error| InputError {
        path: Brief::of(error.path()),
        message: message(error.inner()),
        too_large: allowance.is_exceeded(),
    })
}

/// The error message without line and column: they count from the start of a piece, which clients
/// don't know.
fn message(error: &serde_json::Error) -> String {
    let position = format!(" at line {} column {}", error.line(), error.column());
    let message = error.to_string();
    Brief::of(message.strip_suffix(&position).unwrap_or(&message))
}

macro_rules! as_any_unless_whole {
    ($($method:ident($($argument:ident: $type:ty),*);)*) => {$(
        fn $method<V: Visitor<'de>>(
            self,
            $($argument: $type,)*
            visitor: V,
        ) -> Result<V::Value, serde_json::Error> {
            match self {
                Json::Whole(raw) => raw.$method($($argument,)* visitor),
                pieces => pieces.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &Json<'de> {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Json::Nothing => visitor.visit_unit(),
            Json::Whole(raw) => raw.deserialize_any(visitor),
            Json::Items(items) => visitor.visit_seq(SeqDeserializer::new(items.iter().copied())),
            Json::Fields(fields) => visitor.visit_map(MapDeserializer::new(fields.iter().copied())),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self {
            Json::Nothing => visitor.visit_none(),
            Json::Whole(raw) => raw.deserialize_option(visitor),
            pieces => visitor.visit_some(pieces),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self {
            Json::Whole(raw) => raw.deserialize_newtype_struct(name, visitor),
            pieces => visitor.visit_newtype_struct(pieces),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self {
            Json::Whole(raw) => raw.deserialize_enum(name, variants, visitor),
            Json::Fields(fields) => {
                let variant = MapDeserializer::new(fields.iter().copied());
                MapAccessDeserializer::new(variant).deserialize_enum(name, variants, visitor)
            }
            Json::Nothing | Json::Items(_) => Err(Self::Error::custom("expected a variant")),
        }
    }

    as_any_unless_whole! {
        deserialize_bool();
        deserialize_i8();
        deserialize_i16();
        deserialize_i32();
        deserialize_i64();
        deserialize_i128();
        deserialize_u8();
        deserialize_u16();
        deserialize_u32();
        deserialize_u64();
        deserialize_u128();
        deserialize_f32();
        deserialize_f64();
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use serde::Deserialize;
    use serde_json::Value;
    use serde_json::json;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Prompt {
        text: String,
        #[serde(default)]
        steps: u32,
        area: Option<(u32, u32)>,
        style: Option<Style>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    enum Style {
        Ink,
        Oil(u8, u8),
        Mixed { of: Vec<Style> },
    }

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn whole<T: DeserializeOwned>(text: &str) -> Result<T, InputError> {
        read(Json::Whole(raw(text)), &Allowance::of_json(text.len()))
    }

    fn fields<T: DeserializeOwned>(fields: &[(&str, &str)]) -> Result<T, InputError> {
        let fields = fields.iter().map(|(name, text)| (*name, raw(text))).collect();
        read(Json::Fields(fields), &Allowance::of_json(0))
    }

    #[test]
    fn pieces_make_a_struct_a_tuple_and_nothing() {
        let style = ("style", r#"{"Mixed":{"of":["Ink",{"Oil":[1,2]}]}}"#);
        let read_prompt: Prompt =
            fields(&[("text", r#""a\n""#), ("area", "[1, 2]"), style, ("other", "[[]]")]).unwrap();
        let style = Some(Style::Mixed { of: vec![Style::Ink, Style::Oil(1, 2)] });
        let expected = Prompt { text: "a\n".into(), steps: 0, area: Some((1, 2)), style };
        assert_eq!(read_prompt, expected);
        let items = Json::Items(vec![raw("1"), raw(r#""a""#)]);
        let pair: (u8, String) = read(items, &Allowance::of_json(0)).unwrap();
        assert_eq!(pair, (1, "a".into()));
        read::<()>(Json::Nothing, &Allowance::of_json(0)).unwrap();
        #[derive(Deserialize)]
        struct Around(Prompt);
        assert_eq!(fields::<Around>(&[("text", r#""a""#)]).unwrap().0.text, "a");
        assert_eq!(fields::<Option<Prompt>>(&[("text", r#""a""#)]).unwrap().unwrap().text, "a");
    }

    #[test]
    fn all_that_serde_json_reads_is_read() {
        let text = r#"[{"a": [1, -2, 1.5e3, true, null, "x\u00e9", {}]}, 18446744073709551615]"#;
        assert_eq!(whole::<Value>(text).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        let wide = "[340282366920938463463374607431768211455]";
        assert_eq!(whole::<Vec<u128>>(wide).unwrap(), [u128::MAX]);
        let numbered: HashMap<u8, i128> = whole(r#"{"1": -2, "3": 4}"#).unwrap();
        assert_eq!(numbered, HashMap::from([(1, -2), (3, 4)]));
        let kept: Box<RawValue> = whole(" [ 1 ] ").unwrap();
        assert_eq!(kept.get(), "[ 1 ]");
        assert_eq!(whole::<char>(r#""x""#).unwrap(), 'x');
    }

    #[test]
    fn errors_say_where_and_don_t_repeat_what_is_long() {
        let error = fields::<Prompt>(&[("text", r#""a""#), ("area", "[1, true]")]).unwrap_err();
        assert_eq!(error.path, "area[1]");
        assert_eq!(error.message, "invalid type: boolean `true`, expected u32");
        assert!(fields::<Prompt>(&[]).unwrap_err().message.contains("missing field `text`"));
        let long = json!("\u{7f}".repeat(1 << 20)).to_string();
        let error = whole::<u32>(&long).unwrap_err();
        assert!(error.message.len() < 1000 && error.message.ends_with("expected u32"), "{error:?}");
        for error in [
            whole::<u128>(&long).unwrap_err(),
            whole::<Prompt>(&long).unwrap_err(),
            whole::<Style>(&long).unwrap_err(),
            whole::<Style>(&format!(r#"{{"Oil": {long}}}"#)).unwrap_err(),
            whole::<HashMap<u8, u8>>(&format!("{{{long}: 1}}")).unwrap_err(),
        ] {
            assert!(error.message.len() < 1000 && error.path.len() < 1000, "{}", error.path);
        }
    }

    #[test]
    fn what_takes_too_much_memory_is_refused_by_its_type() {
        let nested = format!("[{}[0]]", "[0],".repeat(1 << 19));
        assert!(whole::<Value>(&nested).unwrap_err().too_large);
        assert!(whole::<Vec<Vec<u8>>>(&nested).unwrap_err().too_large);
        assert!(whole::<Vec<[u8; 1]>>(&nested).is_ok());
        let numbers = format!("[{}0.5]", "0.25,".repeat(1 << 20));
        assert!(whole::<Vec<f64>>(&numbers).is_ok());
        // A box hides what it holds from its list.
        #[derive(Deserialize)]
        struct Large {
            #[serde(default)]
            _room: [[u64; 16]; 16],
        }
        let empty = format!("[{}{{}}]", "{},".repeat(1 << 18));
        let large: Result<Vec<Box<Large>>, _> = whole(&empty);
        assert!(large.err().unwrap().too_large);
    }
}
