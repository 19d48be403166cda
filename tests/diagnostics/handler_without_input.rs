//~ this is no handler: its arguments are not an input, then up to six extras
//~ one that needs nothing takes `()`: `async fn now(_: ()) -> Result<u64, Error>`
use now_serving::Listener;

async fn now() -> Result<u64, String> {
    Ok(0)
}

pub fn declare() -> Listener<(), u64> {
    Listener::new("now", now)
}
