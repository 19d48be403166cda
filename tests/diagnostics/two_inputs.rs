//~ `u32` can't be an extra argument of a handler
//~ of several inputs make one: a struct whose fields they are, or a tuple
use now_serving::Listener;

async fn paint(prompt: String, _: u32) -> Result<String, String> {
    Ok(prompt)
}

pub fn declare() {
    let _ = Listener::new("paint", paint);
}
