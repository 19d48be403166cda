//~ `Prompt` can't be the input of a handler
//~ derive what it lacks: `#[derive(serde::Deserialize, schemars::JsonSchema)]`
use now_serving::Listener;

pub struct Prompt {
    pub text: String,
}

async fn paint(prompt: Prompt) -> Result<String, String> {
    Ok(prompt.text)
}

pub fn declare() {
    let _ = Listener::new("paint", paint);
}
