//! What a queue's builder says about HTTP.

use crate::builder::QueueBuilder;

/// The options, before the start.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub show_error: bool,
    pub title: Option<String>,
    pub root_path: Option<String>,
}

impl QueueBuilder {
    /// Whether clients over HTTP get the text of unexpected errors, as Gradio's `show_error`
    /// (default: no). They always get that of a [`UserError`](crate::UserError).
    pub fn show_error(mut self, show: bool) -> Self {
        self.web.show_error = show;
        self
    }

    /// The title that clients over HTTP are told (default: "now-serving").
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.web.title = Some(title.into());
        self
    }

    /// Where clients find the routes, when a proxy hides it: a path such as `/app`, or a whole URL
    /// such as `https://example.com/app`. As Gradio's `root_path`.
    ///
    /// Not needed where the proxy says `X-Forwarded-Prefix`, nor for a scope of actix-web's.
    pub fn root_path(mut self, root: impl Into<String>) -> Self {
        self.web.root_path = Some(root.into());
        self
    }
}
