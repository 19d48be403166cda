//! A JSON schema as a Python type hint, for the output of `view_api()`.

use serde_json::Value;

use crate::files::json::is_file;

/// The hint, such as `list[str]` or `Literal['oil', 'ink']`. As Gradio's clients print it.
pub(crate) fn python_type(schema: &Value) -> String {
    // Types may refer to themselves; nobody reads deeper than this.
    hint(schema, schema, 8)
}

fn hint(part: &Value, whole: &Value, depth: usize) -> String {
    let Some(depth) = depth.checked_sub(1) else { return "Any".into() };
    let of = |part: &Value| hint(part, whole, depth);
    let union = |parts: &[Value]| parts.iter().map(of).collect::<Vec<_>>().join(" | ");
    if let Some(reference) = part.get("$ref").and_then(Value::as_str) {
        let target = reference.strip_prefix('#').and_then(|pointer| whole.pointer(pointer));
        return target.map_or_else(|| "Any".into(), of);
    }
    if let Some(value) = part.get("const") {
        return format!("Literal[{}]", literal(value));
    }
    if let Some(Value::Array(values)) = part.get("enum") {
        let values: Vec<_> = values.iter().map(literal).collect();
        return format!("Literal[{}]", values.join(", "));
    }
    match part.get("type") {
        Some(Value::String(kind)) => named(kind, part, &of),
        Some(Value::Array(kinds)) => {
            let kinds = kinds.iter().filter_map(Value::as_str);
            kinds.map(|kind| named(kind, part, &of)).collect::<Vec<_>>().join(" | ")
        }
        _ => match (part.get("anyOf"), part.get("oneOf")) {
            (Some(Value::Array(parts)), _) | (_, Some(Value::Array(parts))) => union(parts),
            _ => "Any".into(),
        },
    }
}

fn named(kind: &str, part: &Value, of: &dyn Fn(&Value) -> String) -> String {
    match kind {
        "null" => "None".into(),
        "integer" => "int".into(),
        "number" => "float".into(),
        "string" => "str".into(),
        "boolean" => "bool".into(),
        "array" => match (part.get("prefixItems"), part.get("items")) {
            (Some(Value::Array(items)), _) => {
                format!("tuple[{}]", items.iter().map(of).collect::<Vec<_>>().join(", "))
            }
            (_, Some(item)) => format!("list[{}]", of(item)),
            _ => "list[Any]".into(),
        },
        "object" if is_file(part) => "filepath".into(),
        "object" => {
            let fields = part.get("properties").and_then(Value::as_object);
            let fields = fields.into_iter().flatten();
            let mut fields: Vec<_> =
                fields.map(|(name, field)| format!("{name}: {}", of(field))).collect();
            match part.get("additionalProperties") {
                None | Some(Value::Bool(false)) => {}
                Some(other) => fields.push(format!("str, {}", of(other))),
            }
            format!("dict({})", fields.join(", "))
        }
        _ => "Any".into(),
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn schemas_read_as_python() {
        for (schema, expected) in [
            (json!({"type": "string"}), "str"),
            (json!({"type": ["integer", "null"]}), "int | None"),
            (json!({"type": "array", "items": {"type": "number"}}), "list[float]"),
            (json!({"type": "array", "prefixItems": [{"type": "string"}, {}]}), "tuple[str, Any]"),
            (json!({"enum": ["oil", "ink"]}), "Literal['oil', 'ink']"),
            (json!({"type": "object", "properties": {"a": {"type": "boolean"}}}), "dict(a: bool)"),
            (json!({"$ref": "#/$defs/A", "$defs": {"A": {"type": "integer"}}}), "int"),
            (json!({"anyOf": [{"type": "integer"}, {"type": "null"}]}), "int | None"),
            (
                json!({"type": "object", "additionalProperties": {"type": "integer"}}),
                "dict(str, int)",
            ),
        ] {
            assert_eq!(python_type(&schema), expected);
        }
    }

    #[test]
    fn a_type_that_refers_to_itself_ends() {
        let schema = json!({"$ref": "#/$defs/A",
            "$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}});
        assert!(python_type(&schema).contains("Any"));
    }
}
