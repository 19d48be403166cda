//! `GET /config` and `app_id`: what Gradio's clients request first.

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use crate::web::api::endpoint::Endpoint;
use crate::web::auth::guard::Caller;
use crate::web::base_url::root_url;
use crate::web::listener_options::ApiVisibility;
use crate::web::state::WebState;

/// The version of Gradio whose protocol is spoken. Clients choose their manners by it.
const PROTOCOL_VERSION: &str = "6.31.0";

/// `GET gradio_api/app_id`: another number after a restart, so that clients notice one.
pub(crate) async fn app_id(web: web::Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(json!({ "app_id": web.app_id }))
}

/// `GET /config`
pub(crate) async fn config(
    web: web::Data<WebState>,
    caller: Caller,
    request: HttpRequest,
) -> HttpResponse {
    let root = root_url(&request, "/config", web.options.root_path.as_deref());
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    // Those that no client may call keep their number, but are not listed.
    let callable = web.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.is_callable());
    let mut dependency_ids = Vec::new();
    for (id, endpoint) in callable {
        dependency_ids.push(id);
        let mut add = |schemas: Vec<(&Value, Option<&Value>)>| -> Vec<usize> {
            let mut ids = Vec::new();
            for (position, (schema, default)) in schemas.into_iter().enumerate() {
                let id = components.len() + 1;
                components.push(component(id, position, schema, default));
                ids.push(id);
            }
            ids
        };
        let parameters = endpoint.parameters.iter();
        let inputs = add(parameters.map(|p| (&p.schema, p.default.as_ref())).collect());
        let outputs = add(endpoint.returns.iter().map(|schema| (schema, None)).collect());
        dependencies.push(dependency(id, endpoint, inputs, outputs));
    }
    let component_ids: Vec<usize> = (1..=components.len()).collect();
    let children: Vec<Value> = component_ids.iter().map(|id| json!({ "id": id })).collect();
    let layout = json!({ "id": 0, "children": children });
    HttpResponse::Ok().json(json!({
        "version": PROTOCOL_VERSION,
        "api_prefix": "/gradio_api",
        "mode": "server",
        "app_id": web.app_id,
        "dev_mode": false,
        "vibe_mode": false,
        "analytics_enabled": false,
        "components": components,
        "css": null,
        "connect_heartbeat": web.keeps_state,
        "js": null,
        "head": null,
        "title": web.options.title.as_deref().unwrap_or("now-serving"),
        "space_id": null,
        "enable_queue": true,
        "show_error": web.options.show_error,
        "footer_links": ["api"],
        "run_history": false,
        "is_colab": false,
        "max_file_size": web.options.max_file_size(),
        "stylesheets": [],
        "theme": "default",
        "protocol": "sse_v3",
        "body_css": {},
        "fill_height": false,
        "fill_width": false,
        "theme_hash": "",
        "pwa": false,
        "pages": [["", "Home", true]],
        "page": { "": {
            "layout": layout,
            "components": component_ids,
            "dependencies": dependency_ids,
        } },
        "mcp_server": false,
        "i18n_translations": null,
        "dependencies": dependencies,
        "layout": layout,
        "username": caller.0.as_deref(),
        "root": root,
    }))
}

/// A parameter or an output; clients know these as components of a page.
fn component(id: usize, position: usize, schema: &Value, default: Option<&Value>) -> Value {
    let mut props = json!({
        "_api_info": schema,
        "label": ordinal(position),
        "name": "api",
        "_selectable": false,
    });
    if let Some(default) = default {
        props["value"] = default.clone();
    }
    json!({
        "id": id,
        "type": "api",
        "props": props,
        "skip_api": false,
        "component_class_id": "api",
        "key": null,
        "api_info": schema,
        "api_info_as_input": schema,
        "api_info_as_output": schema,
        "example_inputs": crate::web::api::snippets::example(schema),
    })
}

fn dependency(id: usize, endpoint: &Endpoint, inputs: Vec<usize>, outputs: Vec<usize>) -> Value {
    let options = &endpoint.listener_ref.options;
    json!({
        "id": id,
        "targets": [],
        "inputs": inputs,
        "outputs": outputs,
        "backend_fn": true,
        "js": null,
        "queue": options.queued,
        "api_name": &*endpoint.listener_ref.api_name,
        "api_description": endpoint.description(),
        "scroll_to_output": false,
        "show_progress": "hidden",
        "show_progress_on": null,
        "batch": options.batch.is_some(),
        "max_batch_size": options.batch.unwrap_or(4),
        "cancels": [],
        "types": { "generator": options.generator, "cancel": false },
        "collects_event_data": false,
        "trigger_after": null,
        "trigger_only_on_success": false,
        "trigger_only_on_failure": false,
        "trigger_mode": "once",
        "api_visibility": visibility(endpoint.http.visibility),
        "rendered_in": null,
        "render_id": null,
        "connection": "sse",
        "time_limit": null,
        "stream_every": 0.5,
        "event_specific_args": null,
        "component_prop_inputs": [],
        "js_implementation": null,
    })
}

pub(crate) fn visibility(visibility: ApiVisibility) -> &'static str {
    match visibility {
        ApiVisibility::Public => "public",
        ApiVisibility::Undocumented => "undocumented",
        ApiVisibility::Private => "private",
    }
}

/// The label of a parameter by its position: "1st", "2nd", "3rd", "4th".
pub(crate) fn ordinal(position: usize) -> String {
    let number = position + 1;
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

#[cfg(test)]
mod tests {
    use crate::web::routes::config::ordinal;

    #[test]
    fn places_are_told_in_english() {
        let ordinals = [1, 2, 3, 4, 11, 12, 13, 21, 112].map(|number| ordinal(number - 1));
        assert_eq!(ordinals, ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "112th"]);
    }
}
