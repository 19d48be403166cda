//! Examples of calls, as `info` gives them: Python, JavaScript, curl.

use serde_json::{Map, Value, json};

use super::endpoint::Endpoint;
use super::parameters::Parameter;
use crate::files::json::is_file;

/// An example for a parameter: its default, or a value of its type.
pub(crate) fn example_of(parameter: &Parameter) -> Value {
    parameter.default.clone().unwrap_or_else(|| example(&parameter.schema))
}

/// A value of a schema's type.
pub(crate) fn example(schema: &Value) -> Value {
    sample(schema, schema, 8)
}

fn sample(part: &Value, whole: &Value, depth: usize) -> Value {
    let Some(depth) = depth.checked_sub(1) else { return Value::Null };
    if let Some(reference) = part.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| whole.pointer(pointer));
        return target.map_or(Value::Null, |target| sample(target, whole, depth));
    }
    let first = |key: &str| part.get(key)?.as_array()?.first();
    if let Some(value) = part.get("const").or_else(|| first("enum")) {
        return value.clone();
    }
    if let Some(choice) = first("anyOf").or_else(|| first("oneOf")) {
        return sample(choice, whole, depth);
    }
    let kind = part.get("type").and_then(Value::as_str).or_else(|| first("type")?.as_str());
    match kind {
        Some("string") => "...".into(),
        Some("integer" | "number") => part.get("minimum").cloned().unwrap_or_else(|| json!(0)),
        Some("boolean") => false.into(),
        Some("array") => match part.get("prefixItems") {
            Some(Value::Array(items)) => {
                items.iter().map(|item| sample(item, whole, depth)).collect()
            }
            _ => json!([]),
        },
        Some("object") if is_file(part) => a_file(),
        Some("object") => {
            let fields = part.get("properties").and_then(Value::as_object).into_iter().flatten();
            let fields = fields.map(|(name, field)| (name.clone(), sample(field, whole, depth)));
            Value::Object(fields.collect())
        }
        _ => Value::Null,
    }
}

/// A file as calls name it. Both clients have a function that uploads one and gives this.
fn a_file() -> Value {
    json!({ "path": "what the upload answered", "meta": { "_type": "gradio.FileData" } })
}

const HANDLE_FILE: &str = "handle_file(\"path/to/file\")";

pub(crate) fn snippets(endpoint: &Endpoint, root: &str) -> Value {
    let name = &endpoint.listener_ref.api_name;
    let arguments = || endpoint.parameters.iter().map(|p| (p.name.as_str(), example_of(p)));
    let python: String =
        arguments().map(|(name, value)| format!("\t{name}={},\n", python(&value))).collect();
    let javascript: String =
        arguments().map(|(name, value)| format!("\t\t{name}: {},\n", javascript(&value))).collect();
    let and_file = if python.contains(HANDLE_FILE) { ", handle_file" } else { "" };
    let named: Map<String, Value> = arguments().map(|(name, value)| (name.into(), value)).collect();
    let named = Value::Object(named);
    // Inside single quotes a shell takes everything but the quote as it is.
    let quoted = named.to_string().replace('\'', r"'\''");
    json!({
        "python": format!(
            "from gradio_client import Client{and_file}\n\nclient = Client(\"{root}\")\nresult = \
             client.predict(\n{python}\tapi_name=\"/{name}\",\n)\nprint(result)"
        ),
        "javascript": format!(
            "import {{ Client{and_file} }} from \"@gradio/client\";\n\nconst client = await \
             Client.connect(\"{root}\");\nconst result = await client.predict(\"/{name}\", \
             {{\n{javascript}}});\n\nconsole.log(result.data);"
        ),
        "bash": format!(
            "curl -X POST {root}/gradio_api/call/v2/{name} -s -H \"Content-Type: \
             application/json\" \\\n  -d '{quoted}' \\\n  | awk -F'\"' '{{ print $4}}' \\\n  | read \
             EVENT_ID; curl -N {root}/gradio_api/call/{name}/$EVENT_ID"
        ),
        "cli": format!("{{command}} predict {root} /{name} '{quoted}'\n"),
    })
}

/// A value as JavaScript writes it.
fn javascript(value: &Value) -> String {
    if *value == a_file() { HANDLE_FILE.into() } else { value.to_string() }
}

/// A value as Python writes it.
fn python(value: &Value) -> String {
    match value {
        file if *file == a_file() => HANDLE_FILE.into(),
        Value::Null => "None".into(),
        Value::Bool(true) => "True".into(),
        Value::Bool(false) => "False".into(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", "))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields: Vec<_> =
                fields.map(|(name, value)| format!("{}: {}", json!(name), python(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_of_the_schema_s_type() {
        let schema = json!({"type": "object", "properties": {
            "text": {"type": "string"}, "steps": {"type": "integer", "minimum": 1},
            "style": {"$ref": "#/$defs/Style"}, "on": {"type": ["boolean", "null"]}},
            "$defs": {"Style": {"enum": ["oil", "ink"]}}});
        let expected = json!({"text": "...", "steps": 1, "style": "oil", "on": false});
        assert_eq!(example(&schema), expected);
        assert_eq!(
            python(&json!({"a": [null, true, 1.5, "it's"]})),
            r#"{"a": [None, True, 1.5, "it's"]}"#
        );
    }
}
