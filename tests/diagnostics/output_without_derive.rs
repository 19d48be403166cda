//~ `Image` can't be the output of a handler
//~ derive what it lacks: `#[derive(serde::Serialize, schemars::JsonSchema)]`
use now_serving::Listener;

pub struct Image;

async fn paint(_: String) -> Result<Image, String> {
    Ok(Image)
}

pub fn declare() {
    let _ = Listener::new("paint", paint);
}
