//! Log lines on standard error: for people, or one JSON object each. Every line names the node.
//!
//! Severity comes from, in this order: `RUST_LOG`, `--log-level`, `log.level` of the configuration.

use haven_config::{LogFormat, LogLevel};
use serde_json::{Map, Value};
use std::fmt;
use std::io::IsTerminal;
use std::sync::OnceLock;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The consensus library is told apart: what matters of it, our own crates say.
const QUIETER: &str = "openraft=error";

/// How severity is changed while the process runs.
static SEVERITY: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Begins logging. `level` is what the operator or the configuration wants.
pub fn start(node: &str, level: LogLevel, format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(level));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal() && format == LogFormat::Text)
        .with_writer(std::io::stderr)
        .event_format(Lines {
            node: node.to_owned(),
            format,
        });
    // Only a process that logs already is told no: it goes on as it does.
    if Registry::default()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        let _ = SEVERITY.set(handle);
    }
}

/// Changes the severity, unless `RUST_LOG` rules.
pub fn set_level(level: LogLevel) {
    if std::env::var_os(EnvFilter::DEFAULT_ENV).is_none()
        && let Some(handle) = SEVERITY.get()
    {
        // It fails only when nothing logs any more.
        let _ = handle.reload(filter(level));
    }
}

fn filter(level: LogLevel) -> EnvFilter {
    match level {
        LogLevel::Debug | LogLevel::Trace => EnvFilter::new(level.as_str()),
        _ => EnvFilter::new(format!("{},{QUIETER}", level.as_str())),
    }
}

/// Writes an event as a line.
struct Lines {
    node: String,
    format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self.format {
            LogFormat::Text => self.text(context, writer, event),
            LogFormat::Json => self.json(writer, event),
        }
    }
}

impl Lines {
    fn text<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        SystemTime.format_time(&mut writer)?;
        let level = *event.metadata().level();
        if writer.has_ansi_escapes() {
            let colour = match level {
                Level::ERROR => 31,
                Level::WARN => 33,
                Level::INFO => 32,
                _ => 34,
            };
            write!(writer, " \x1b[{colour}m{level:>5}\x1b[0m")?;
        } else {
            write!(writer, " {level:>5}")?;
        }
        write!(writer, " {} {}: ", self.node, event.metadata().target())?;
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }

    fn json(&self, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Map::new();
        event.record(&mut Fields(&mut line));
        // Last, so that no field of an event hides them.
        line.insert("time".into(), time.into());
        line.insert(
            "level".into(),
            event.metadata().level().as_str().to_lowercase().into(),
        );
        line.insert("node".into(), self.node.as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        let text = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{text}")
    }
}

/// Collects an event's fields.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}
