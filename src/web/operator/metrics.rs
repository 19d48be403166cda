//! A queue's metrics in Prometheus' text format, made from a snapshot for each request.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use actix_web::{HttpResponse, web};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, MetricEncoder,
    NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::operators::{Operators, guard};
use crate::scheduler::snapshot::{ConcurrencyIdSnapshot, Histogram, ListenerSnapshot};
use crate::web::rejection::Rejection;
use crate::web::state::{Web, WebSnapshot, WebState};

/// As OpenMetrics, which Prometheus reads.
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

impl Web {
    /// A route with the queue's metrics for Prometheus, for `App::configure`. They name listeners
    /// and count events, and contain no client and no payload; still, the service must restrict
    /// access to them: by its own means, or as [`Web::metrics_for`].
    ///
    /// Of each concurrency id: `now_serving_slots` (the limit), `_running`, `_waiting`, `_blocked`,
    /// `_scheduled`, `_journal_trouble`, `_paused`, `_failing_slots`, `_unavailable_seconds`, `_oldest_wait_seconds`. Of each listener: `now_serving_admitted_events_total`,
    /// `_ended_events_total` by `outcome`, `_refused_events_total` by `reason`, and histograms
    /// `_wait_seconds`, `_run_seconds`, `_batch_events`; the same of permits, and so of gates, as
    /// `listener="(permit)"` where an id has given any, and of each gate that has a
    /// [`name`](crate::Gate::name), as `listener="(render)"`. Of all clients: `now_serving_sessions`,
    /// `_streams`, `_kept_results`, `_kept_result_bytes`, `_kept_value_bytes`.
    ///
    /// ```
    /// use actix_web::App;
    /// # fn app(web: now_serving::Web) {
    /// App::new().configure(web.routes()).configure(web.metrics("/metrics"))
    /// # ;
    /// # }
    /// ```
    pub fn metrics(&self, path: &str) -> impl FnOnce(&mut ServiceConfig) + use<> {
        let (state, path) = (web::Data::from(self.0.clone()), path.to_owned());
        move |service| {
            service.service(web::resource(path).app_data(state).get(metrics).head(metrics));
        }
    }

    /// [`Web::metrics`] for operators only, whether they may steer or only look: `basic_auth` in
    /// Prometheus' configuration.
    ///
    /// ```
    /// use actix_web::App;
    /// use now_serving::{Access, Operators, Users};
    /// # fn app(web: now_serving::Web, password: String) {
    /// let prometheus = Operators::new(Users::new().user("prometheus", password));
    /// App::new().configure(
    ///     web.metrics_for("/metrics", prometheus.access(|_| Access::ReadOnly)),
    /// )
    /// # ;
    /// # }
    /// ```
    pub fn metrics_for<O: Into<Operators>>(
        &self,
        path: &str,
        operators: O,
    ) -> impl FnOnce(&mut ServiceConfig) + use<O> {
        let (state, path) = (web::Data::from(self.0.clone()), path.to_owned());
        let operators = operators.into();
        move |service| {
            let guard = from_fn(move |request, next| guard(operators.clone(), request, next));
            let resource = web::resource(path).app_data(state).get(metrics).head(metrics);
            service.service(resource.wrap(guard));
        }
    }
}

async fn metrics(web: web::Data<WebState>) -> Result<HttpResponse, Rejection> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Metrics(web.snapshot().await)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).map_err(|_| {
        let message = "The metrics can't be written.";
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, message.into())
    })?;
    Ok(HttpResponse::Ok().content_type(CONTENT_TYPE).body(text))
}

#[derive(Debug)]
struct Metrics(WebSnapshot);

type Label<'a> = (&'static str, LabelValue<'a>);

/// Escaped as the format wants it, which the encoder leaves to its callers.
#[derive(Clone, Copy)]
struct LabelValue<'a>(&'a str);

impl EncodeLabelValue for LabelValue<'_> {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        use fmt::Write;
        self.0.chars().try_for_each(|c| match c {
            '\\' | '"' => write!(encoder, "\\{c}"),
            '\n' => encoder.write_str("\\n"),
            c => encoder.write_char(c),
        })
    }
}

/// What a series is worth.
enum Value<'a> {
    Counter(u64),
    Gauge(f64),
    Histogram(&'a Histogram),
}

impl Value<'_> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Value::Counter(count) => encoder.encode_counter::<NoLabelSet, _, f64>(count, None),
            Value::Gauge(value) => encoder.encode_gauge(value),
            Value::Histogram(Histogram { bounds, counts, sum, count, .. }) => {
                // The last of all stands for infinity.
                let bounds = bounds.iter().copied().chain([f64::MAX]);
                let buckets: Vec<_> = bounds.zip(counts.iter().copied()).collect();
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, &buckets, None)
            }
        }
    }

    fn kind(&self) -> MetricType {
        match self {
            Value::Counter(_) => MetricType::Counter,
            Value::Gauge(_) => MetricType::Gauge,
            Value::Histogram(_) => MetricType::Histogram,
        }
    }
}

/// Writes all series of one name.
fn family<'a, L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (L, Value<'a>)>,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    let Some((_, first)) = series.peek() else { return Ok(()) };
    let name = format!("now_serving_{name}");
    let mut family = encoder.encode_descriptor(&name, help, None, first.kind())?;
    for (labels, value) in series {
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.ids(&mut encoder)?;
        self.listeners(&mut encoder)?;
        let clients = &self.0.clients;
        for (name, help, value) in [
            ("sessions", "Sessions that are remembered", clients.sessions),
            ("streams", "Update streams that are open", clients.streams),
            ("kept_results", "Results that can be fetched again", clients.kept_results),
            ("kept_result_bytes", "Bytes of their JSON", clients.kept_result_bytes),
            (
                "kept_value_bytes",
                "Bytes of yielded values kept for clients that come back",
                clients.kept_value_bytes,
            ),
        ] {
            let name = format!("now_serving_{name}");
            let gauge = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
            Value::Gauge(value as f64).encode(gauge)?;
        }
        Ok(())
    }
}

impl Metrics {
    fn ids(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Read = fn(&ConcurrencyIdSnapshot) -> f64;
        let gauges: [(&str, &str, Read); 10] = [
            ("slots", "How many events may run at once", |id| match id.limit {
                crate::scheduler::limit::Limit::Slots(slots) => slots as f64,
                crate::scheduler::limit::Limit::Unlimited => f64::INFINITY,
            }),
            ("running", "Runs under way", |id| id.running as f64),
            ("waiting", "Events in the wait queue", |id| id.waiting as f64),
            ("blocked", "Callers that wait for room in the wait queue", |id| id.blocked as f64),
            ("scheduled", "Events that may start only later", |id| id.scheduled as f64),
            ("journal_trouble", "1 while the journal takes no records", |id| {
                id.journal_trouble.is_some().into()
            }),
            ("paused", "1 while nothing starts until it is resumed", |id| id.paused.into()),
            ("failing_slots", "Slots whose resource could not be built", |id| {
                id.failing_slots as f64
            }),
            (
                "unavailable_seconds",
                "For how long no slot at all has had its resource, because builds fail",
                |id| id.unavailable.unwrap_or_default(),
            ),
            (
                "oldest_wait_seconds",
                "For how long the oldest event in the wait queue has waited",
                |id| id.oldest_wait.unwrap_or_default(),
            ),
        ];
        for (name, help, read) in gauges {
            let series = self
                .0
                .queue
                .concurrency_ids
                .iter()
                .map(|id| (id, LabelValue(&id.concurrency_id)))
                .map(|(id, name)| ([("concurrency_id", name)], Value::Gauge(read(id))));
            family(encoder, name, help, series)?;
        }
        Ok(())
    }

    fn listeners(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let all = || {
            self.0.queue.concurrency_ids.iter().flat_map(|id| {
                id.listeners.iter().chain(&id.permits).chain(&id.gates).map(|listener| {
                    let labels: [Label<'_>; 2] = [
                        ("concurrency_id", LabelValue(&id.concurrency_id)),
                        ("listener", LabelValue(&listener.api_name)),
                    ];
                    (labels, listener)
                })
            })
        };
        let admitted = all().map(|(labels, l)| (labels, Value::Counter(l.admitted)));
        family(encoder, "admitted_events", "Events admitted to the wait queue", admitted)?;
        let ended = all().flat_map(|([id, listener], l)| {
            let kinds = [
                ("completed", l.completed),
                ("failed", l.failed),
                ("cancelled", l.cancelled),
                ("timed_out", l.timed_out),
                ("stopped", l.stopped),
            ];
            kinds.map(|(kind, count)| {
                ([id, listener, ("outcome", LabelValue(kind))], Value::Counter(count))
            })
        });
        family(encoder, "ended_events", "Admitted events that have ended", ended)?;
        let refused = all().flat_map(|([id, listener], l)| {
            let reasons = [
                ("queue_full", l.refusals.queue_full),
                ("wait_too_long", l.refusals.wait_too_long),
                ("unavailable", l.refusals.unavailable),
                ("not_recorded", l.refusals.not_recorded),
                ("stopped", l.refusals.stopped),
            ];
            reasons.map(|(why, count)| {
                ([id, listener, ("reason", LabelValue(why))], Value::Counter(count))
            })
        });
        family(encoder, "refused_events", "Events not admitted to the wait queue", refused)?;
        type Read = fn(&ListenerSnapshot) -> &Histogram;
        let histograms: [(&str, &str, Read); 3] = [
            ("wait_seconds", "How long events waited before they started", |l| &l.wait_seconds),
            ("run_seconds", "How long runs took", |l| &l.run_seconds),
            ("batch_events", "How many events ran together", |l| &l.batch_events),
        ];
        for (name, help, read) in histograms {
            let series = all().map(|(labels, l)| (labels, Value::Histogram(read(l))));
            family(encoder, name, help, series)?;
        }
        Ok(())
    }
}
