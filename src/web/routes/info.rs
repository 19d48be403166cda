//! `GET gradio_api/info`: the listeners' names, parameters and results.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Map, Value, json};

use super::config::{ordinal, visibility};
use crate::web::api::endpoint::Endpoint;
use crate::web::api::python_type::python_type;
use crate::web::api::snippets;
use crate::web::base_url::root_url;
use crate::web::listener_options::ApiVisibility;
use crate::web::state::WebState;

/// Only public listeners are described.
pub(crate) async fn info(web: web::Data<WebState>, request: HttpRequest) -> HttpResponse {
    let root = root_url(&request, "/gradio_api/info", web.options.root_path.as_deref());
    let public = |endpoint: &&Endpoint| endpoint.http.visibility == ApiVisibility::Public;
    let described = web.endpoints.iter().filter(public);
    let named: Map<String, Value> = described
        .map(|endpoint| (format!("/{}", endpoint.listener_ref.api_name), describe(endpoint, &root)))
        .collect();
    HttpResponse::Ok().json(json!({ "named_endpoints": named, "unnamed_endpoints": {} }))
}

fn describe(endpoint: &Endpoint, root: &str) -> Value {
    let parameters = endpoint.parameters.iter().enumerate();
    let parameters: Vec<Value> = parameters
        .map(|(position, parameter)| {
            json!({
                "label": ordinal(position),
                "parameter_name": parameter.name,
                "parameter_has_default": parameter.default.is_some(),
                "parameter_default": parameter.default,
                "type": parameter.schema,
                "python_type": {
                    "type": python_type(&parameter.schema),
                    "description": parameter.description,
                },
                "component": "Api",
                "example_input": snippets::example_of(parameter),
            })
        })
        .collect();
    let returns = endpoint.returns.iter().enumerate();
    let returns: Vec<Value> = returns
        .map(|(position, schema)| {
            json!({
                "label": ordinal(position),
                "type": schema,
                "python_type": { "type": python_type(schema), "description": "" },
                "component": "Api",
            })
        })
        .collect();
    json!({
        "parameters": parameters,
        "returns": returns,
        "api_visibility": visibility(endpoint.http.visibility),
        "description": endpoint.description().unwrap_or_default(),
        "code_snippets": snippets::snippets(endpoint, root),
    })
}
