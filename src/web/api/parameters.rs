//! The parameters of a listener, from the JSON schema of its input.

use serde_json::{Map, Value};

use crate::web::protocol::layout::Layout;

/// One parameter.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub name: String,
    /// Its JSON schema, with the definitions that it refers to.
    pub schema: Value,
    pub description: String,
    /// What it is when left out, where it may be.
    pub default: Option<Value>,
    accepts_null: bool,
}

impl Parameter {
    /// Whether a null means that the parameter was left out: clients fill in a default that they
    /// don't know with null.
    pub fn is_left_out(&self, json: &str) -> bool {
        json == "null" && self.default.is_some() && !self.accepts_null
    }
}

/// The parameters of an input of this schema and layout.
pub(crate) fn parameters(schema: &Value, layout: &Layout) -> Vec<Parameter> {
    let required = |name: &str| {
        let required = schema.get("required").and_then(Value::as_array);
        required.is_some_and(|names| names.iter().any(|required| required == name))
    };
    let parameter = |name: String, part: &Value, optional: bool| Parameter {
        description: part.get("description").and_then(Value::as_str).unwrap_or_default().into(),
        default: optional.then(|| part.get("default").cloned().unwrap_or_default()),
        accepts_null: accepts_null(part, schema),
        schema: self_contained(part, schema),
        name,
    };
    match layout {
        Layout::Nothing => Vec::new(),
        Layout::One => vec![parameter(unnamed(0), schema, false)],
        Layout::Tuple(_) => {
            let items = schema.get("prefixItems").and_then(Value::as_array);
            let items = items.into_iter().flatten().enumerate();
            items.map(|(at, item)| parameter(unnamed(at), item, false)).collect()
        }
        Layout::Fields(names) => names
            .iter()
            .map(|name| {
                let part = schema.get("properties").and_then(|fields| fields.get(name));
                parameter(name.clone(), part.unwrap_or(&Value::Null), !required(name))
            })
            .collect(),
    }
}

/// The schemas of the outputs.
pub(crate) fn returns(schema: &Value, layout: &Layout) -> Vec<Value> {
    parameters(schema, layout).into_iter().map(|parameter| parameter.schema).collect()
}

/// The name of a parameter that has none, as Gradio names it.
pub(crate) fn unnamed(position: usize) -> String {
    format!("param_{position}")
}

/// A part of a schema that stands for itself.
fn self_contained(part: &Value, whole: &Value) -> Value {
    let mut fields = match part {
        Value::Object(fields) => fields.clone(),
        // `true`, any value.
        _ => Map::new(),
    };
    // Sent elsewhere, or useless to clients: the meta-schema and the type's Rust name.
    for key in ["$schema", "title", "description", "default"] {
        fields.shift_remove(key);
    }
    if let Some(definitions) = whole.get("$defs")
        && part.to_string().contains("\"$ref\"")
    {
        fields.insert("$defs".into(), definitions.clone());
    }
    Value::Object(fields)
}

fn accepts_null(part: &Value, whole: &Value) -> bool {
    let Value::Object(fields) = part else { return true };
    let any = |key: &str| {
        let parts = fields.get(key).and_then(Value::as_array);
        parts.map(|parts| parts.iter().any(|part| accepts_null(part, whole)))
    };
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| whole.pointer(pointer));
        return target.is_some_and(|target| accepts_null(target, whole));
    }
    match fields.get("type") {
        Some(Value::String(kind)) => kind == "null",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "null"),
        _ => any("anyOf").or_else(|| any("oneOf")).unwrap_or_else(|| {
            fields
                .get("enum")
                .and_then(Value::as_array)
                .is_none_or(|all| all.contains(&Value::Null))
        }),
    }
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
        /// What to paint.
        text: String,
        #[serde(default = "twenty")]
        steps: u32,
        seed: Option<i64>,
        style: Style,
    }

    fn twenty() -> u32 {
        20
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    enum Style {
        Oil,
        Ink,
    }

    #[test]
    fn fields_tell_their_names_defaults_and_comments() {
        let schema = schema_for!(Prompt);
        let layout = Layout::of_input(&schema);
        let found = parameters(schema.as_value(), &layout);
        let names: Vec<_> = found.iter().map(|parameter| parameter.name.as_str()).collect();
        assert_eq!(names, ["text", "steps", "seed", "style"]);
        assert_eq!(found[0].schema, json!({"type": "string"}));
        assert_eq!(found[0].description, "What to paint.");
        assert_eq!((&found[0].default, &found[1].default), (&None, &Some(json!(20))));
        assert_eq!(found[2].default, Some(Value::Null));
        assert!(found[1].is_left_out("null") && !found[1].is_left_out("3"));
        assert!(!found[2].is_left_out("null") && !found[0].is_left_out("null"));
        assert_eq!(found[3].schema["$defs"]["Style"]["enum"], json!(["Oil", "Ink"]));
    }

    #[test]
    fn what_has_no_name_is_numbered() {
        let schema = schema_for!((u8, String));
        let found = parameters(schema.as_value(), &Layout::of_input(&schema));
        assert_eq!((found[0].name.as_str(), found[1].name.as_str()), ("param_0", "param_1"));
        assert_eq!(found[1].schema, json!({"type": "string"}));
        assert!(returns(schema_for!(()).as_value(), &Layout::Nothing).is_empty());
    }
}
