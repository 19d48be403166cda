//~ `std::string::String` can't be an extra argument of a handler
//~ write the input first: `async fn paint(prompt: Prompt, context: EventContext)`
//~ `EventContext` can't be the input of a handler
use now_serving::{EventContext, Listener};

async fn paint(_: EventContext, prompt: String) -> Result<String, String> {
    Ok(prompt)
}

pub fn declare() {
    let _ = Listener::new("paint", paint);
}
