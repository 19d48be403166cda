// Compiles: so the others fail for the reasons that they name.
use now_serving::{EventContext, Listener, State};

async fn now(_: ()) -> Result<u64, String> {
    Ok(0)
}

async fn paint(prompt: (String, u32), _: EventContext, _: State<u32>) -> Result<String, String> {
    Ok(prompt.0)
}

pub fn declare() {
    let _ = (Listener::new("now", now), Listener::new("paint", paint));
}
