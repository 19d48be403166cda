//! `GET gradio_api/openapi.json`: the public listeners for tools that read OpenAPI.

use actix_web::{HttpResponse, web};
use serde_json::{Map, Value, json};

use crate::web::api::endpoint::Endpoint;
use crate::web::listener_options::ApiVisibility;
use crate::web::state::WebState;

pub(crate) async fn openapi(web: web::Data<WebState>) -> HttpResponse {
    let public = |endpoint: &&Endpoint| endpoint.http.visibility == ApiVisibility::Public;
    let mut paths = Map::new();
    for endpoint in web.endpoints.iter().filter(public) {
        let name = &endpoint.listener_ref.api_name;
        paths.insert(format!("/gradio_api/call/v2/{name}"), json!({ "post": start(endpoint) }));
        paths.insert(
            format!("/gradio_api/call/{name}/{{event_id}}"),
            json!({ "get": follow(endpoint) }),
        );
    }
    if let Some(dashboard) = web.dashboard.get() {
        paths.insert(format!("{dashboard}/snapshot"), json!({ "get": snapshot() }));
        paths.insert(format!("{dashboard}/actions"), json!({ "post": actions() }));
    }
    let mut document = json!({
        // Of this version on, its schemas are JSON schemas as they come from Rust's types.
        "openapi": "3.1.0",
        "info": {
            "title": web.options.title.as_deref().unwrap_or("now-serving"),
            "version": env!("CARGO_PKG_VERSION"),
        },
        "paths": paths,
    });
    let mut schemes = Map::new();
    if let Some(login_guard) = &web.login_guard {
        let scheme = json!({ "type": "apiKey", "in": "cookie", "name": login_guard.cookie_name() });
        schemes.insert("login".into(), scheme);
        document["security"] = json!([{ "login": [] }]);
    }
    if web.dashboard.get().is_some() {
        schemes.insert("operator".into(), json!({ "type": "http", "scheme": "basic" }));
    }
    if !schemes.is_empty() {
        document["components"] = json!({ "securitySchemes": schemes });
    }
    HttpResponse::Ok().json(document)
}

/// For operators: see [`Web::dashboard`](crate::Web::dashboard).
fn snapshot() -> Value {
    let number = json!({ "type": "number" });
    let id = json!({
        "type": "object",
        "properties": {
            "concurrency_id": { "type": "string" },
            "limit": { "type": ["integer", "null"], "description": "null for unlimited" },
            "paused": { "type": "boolean" },
            "stopped": { "type": "boolean" },
            "running": number, "waiting": number, "blocked": number, "scheduled": number,
            "journal_trouble": {
                "type": ["string", "null"],
                "description": "why nothing can be recorded",
            },
            "oldest_wait": { "type": ["number", "null"], "description": "seconds" },
            "slots": { "type": "array", "items": { "type": "object" } },
            "upcoming": { "type": "array", "items": { "type": "object" } },
            "recent": { "type": "array", "items": { "type": "object" } },
            "listeners": { "type": "array", "items": { "type": "object" } },
        },
        "required": ["concurrency_id", "limit", "running", "waiting", "slots", "listeners"],
    });
    json!({
        "summary": "What the queue looks like now",
        "operationId": "queue_snapshot",
        "security": [{ "operator": [] }],
        "responses": {
            "200": {
                "description": "Every concurrency id with its slots, its wait queue and its listeners",
                "content": { "application/json": { "schema": {
                    "type": "object",
                    "properties": {
                        "concurrency_ids": { "type": "array", "items": id },
                        "clients": { "type": "object" },
                    },
                    "required": ["concurrency_ids", "clients"],
                } } },
            },
            "401": { "description": "For operators only" },
            "403": { "description": "This user is none" },
        },
    })
}

/// What an operator may do; a test holds that the dashboard knows each of them.
fn actions() -> Value {
    let text = json!({ "type": "string" });
    let id = || json!({ "concurrency_id": text });
    let limit = json!({
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "null for unlimited",
    });
    let known = [
        ("cancel", "Ends an event", json!({ "listener": text, "event_id": text })),
        ("pause", "Starts no more events of an id", id()),
        ("resume", "Ends a pause", id()),
        ("set_limit", "Changes a limit", json!({ "concurrency_id": text, "limit": limit })),
        ("resubmit", "Submits a durable event that has failed again", json!({ "event_id": text })),
        ("drain", "Takes no more events, and lets running ones finish", json!({})),
    ];
    let action = |(name, description, fields): (&str, &str, Value)| {
        let mut properties = Map::from_iter([("action".into(), json!({ "const": name }))]);
        if let Value::Object(fields) = fields {
            properties.extend(fields);
        }
        let required: Vec<String> = properties.keys().cloned().collect();
        json!({
            "type": "object",
            "description": description,
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    };
    let schema = json!({ "oneOf": known.map(action) });
    json!({
        "summary": "Steers the queue",
        "operationId": "queue_action",
        "security": [{ "operator": [] }],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": schema } },
        },
        "responses": {
            "200": { "description": "It is done" },
            "400": { "description": "It can't be done; `detail` says why" },
            "401": { "description": "For operators only" },
            "403": { "description": "The body isn't declared as JSON, or comes from another page, or the \
                operator may only look" },
            "404": { "description": "No such concurrency id, listener or failed event" },
            "422": { "description": "It is no action; `detail` says why" },
        },
    })
}

fn start(endpoint: &Endpoint) -> Value {
    let name = &endpoint.listener_ref.api_name;
    let mut definitions = Map::new();
    let mut properties = Map::new();
    for parameter in &endpoint.parameters {
        let mut schema = parameter.schema.clone();
        if let Value::Object(fields) = &mut schema {
            // References are true from the root of the schema only.
            if let Some(Value::Object(found)) = fields.shift_remove("$defs") {
                definitions.extend(found);
            }
            if !parameter.description.is_empty() {
                fields.insert("description".into(), parameter.description.as_str().into());
            }
            if let Some(default) = &parameter.default {
                fields.insert("default".into(), default.clone());
            }
        }
        properties.insert(parameter.name.clone(), schema);
    }
    let required = endpoint.parameters.iter().filter(|parameter| parameter.default.is_none());
    let required: Vec<&str> = required.map(|parameter| parameter.name.as_str()).collect();
    // An id of its own makes the schema the root of its references.
    let schema = json!({
        "$id": format!("/gradio_api/schemas/{name}"),
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
        "$defs": definitions,
    });
    let mut responses = json!({
        "200": {
            "description": "The event waits in its wait queue",
            "content": { "application/json": { "schema": {
                "type": "object",
                "properties": { "event_id": { "type": "string" } },
                "required": ["event_id"],
            } } },
        },
        "413": { "description": "The body is too large" },
        "422": { "description": "The arguments don't fit; `detail` says which and why" },
        "503": { "description": "The wait queue is full, or the queue is stopped" },
    });
    if endpoint.listener_ref.options.allow.is_some() {
        responses["403"] = json!({ "description": "This user may not call it" });
    }
    let summary = endpoint.description().map_or_else(|| format!("Calls /{name}"), String::from);
    json!({
        "summary": summary,
        "description": format!("The result comes from GET /gradio_api/call/{name}/{{event_id}}."),
        "operationId": name,
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": schema } },
        },
        "responses": responses,
    })
}

fn follow(endpoint: &Endpoint) -> Value {
    let name = &endpoint.listener_ref.api_name;
    json!({
        "summary": format!("The result of a call of /{name}"),
        "description": "Server-sent events: `generating` for each value on the way, then `complete` \
            with an array of outputs, or `error`.",
        "operationId": format!("{name}_result"),
        "parameters": [{
            "name": "event_id",
            "in": "path",
            "required": true,
            "schema": { "type": "string" },
        }],
        "responses": { "200": {
            "description": "A stream of events",
            "content": { "text/event-stream": { "schema": { "type": "string" } } },
        } },
    })
}
