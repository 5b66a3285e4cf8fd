//! PromQL read against the catalogue: which metrics a query asks for, and which labels its result has.

use std::collections::BTreeSet;

use fsi_agent::telemetry::defs::{self, MetricDef, MetricKind};
use fsi_agent::telemetry::errno;
use promql_parser::label::{MatchOp, Matcher, Matchers};
use promql_parser::parser::token::{T_BOTTOMK, T_TOPK};
use promql_parser::parser::{
    self, AggregateExpr, BinaryExpr, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};
use tonic::Code;

/// Labels that Prometheus adds.
const PROMETHEUS: [&str; 2] = ["instance", "job"];
/// The label of a histogram's bound.
const LE: &str = "le";
/// Prometheus's own metric: whether a target answers.
const UP: &str = "up";
/// The label of the driver's calls that says how they ended, and the largest number of a code of gRPC.
const LABEL_CODE: &str = "code";
const LAST_CODE: i32 = 16;
/// The kernel's largest errno that has a name.
const MAX_ERRNO: u16 = 133;

type Labels = BTreeSet<String>;

/// A query of which every name is in the catalogue.
#[derive(Debug)]
pub struct Query {
    selectors: Vec<(&'static str, Matchers)>,
    named: Labels,
    labels: Labels,
}

impl Query {
    /// Reads an expression.
    ///
    /// # Errors
    /// It is no PromQL, or it has a name that is not there; a sentence says which.
    pub fn read(expression: &str) -> Result<Self, String> {
        let mut query = Self { selectors: Vec::new(), named: Labels::new(), labels: Labels::new() };
        query.labels = query.result_of(&parser::parse(expression)?)?.unwrap_or_default();
        Ok(query)
    }

    /// What the catalogue calls the metrics that it asks for.
    pub fn metrics(&self) -> impl Iterator<Item = &'static str> {
        self.selectors.iter().map(|(name, _matchers)| *name)
    }

    /// Labels that it selects or groups by.
    pub fn named_labels(&self) -> impl Iterator<Item = &str> {
        self.named.iter().map(String::as_str)
    }

    /// The labels of its result.
    #[must_use]
    pub fn labels(&self) -> BTreeSet<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// Whether it asks for this metric where it has these labels.
    #[must_use]
    pub fn selects(&self, metric: &str, labels: &[(&str, &str)]) -> bool {
        let value =
            |name: &str| labels.iter().find(|(label, _value)| *label == name).map_or("", |(_label, value)| value);
        let matches = |matcher: &Matcher| matcher.is_match(value(&matcher.name));
        self.selectors.iter().any(|(name, matchers)| *name == metric && matchers.matchers.iter().all(matches))
    }

    /// Labels of what an expression gives; nothing for a number.
    fn result_of(&mut self, expression: &Expr) -> Result<Option<Labels>, String> {
        match expression {
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) => Ok(None),
            Expr::VectorSelector(selector) => self.selector(selector).map(Some),
            Expr::MatrixSelector(matrix) => self.selector(&matrix.vs).map(Some),
            Expr::Paren(inner) => self.result_of(&inner.expr),
            Expr::Unary(inner) => self.result_of(&inner.expr),
            Expr::Subquery(inner) => self.result_of(&inner.expr),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate).map(Some),
            Expr::Binary(binary) => self.binary(binary),
            Expr::Call(call) => {
                let mut result = None;
                for argument in &call.args.args {
                    result = self.result_of(argument)?.or(result);
                }
                if call.func.name == "histogram_quantile" && !result.as_mut().is_some_and(|labels| labels.remove(LE)) {
                    return Err("a quantile of what has no bounds".to_owned());
                }
                Ok(result)
            }
            Expr::Extension(_) => Err("an extension of the language".to_owned()),
        }
    }

    fn selector(&mut self, selector: &VectorSelector) -> Result<Labels, String> {
        let name = selector.name.as_deref().ok_or("a selector without a metric")?;
        let mut labels: Labels = PROMETHEUS.map(str::to_owned).into();
        if name != UP {
            let (metric, is_bucket) = metric(name).ok_or_else(|| format!("no metric is called {name}"))?;
            labels.extend(metric.labels.iter().map(|label| (*label).to_owned()));
            labels.extend(is_bucket.then(|| LE.to_owned()));
            if !selector.matchers.or_matchers.is_empty() {
                return Err("alternatives in a selector".to_owned());
            }
            self.selectors.push((metric.name, selector.matchers.clone()));
        }
        for matcher in &selector.matchers.matchers {
            self.has(&labels, &matcher.name)?;
            known_value(matcher)?;
        }
        Ok(labels)
    }

    fn aggregate(&mut self, aggregate: &AggregateExpr) -> Result<Labels, String> {
        let inner = self.result_of(&aggregate.expr)?.ok_or("an aggregation of a number")?;
        if [T_TOPK, T_BOTTOMK].contains(&aggregate.op.id()) {
            return Ok(inner);
        }
        match &aggregate.modifier {
            None => Ok(Labels::new()),
            Some(modifier) => self.modified(&inner, modifier),
        }
    }

    /// What is left of labels after `by`, `on`, `without` or `ignoring`.
    fn modified(&mut self, labels: &Labels, modifier: &LabelModifier) -> Result<Labels, String> {
        let named: Labels = modifier.labels().labels.iter().cloned().collect();
        for label in &named {
            self.has(labels, label)?;
        }
        Ok(match modifier {
            LabelModifier::Include(_) => named,
            LabelModifier::Exclude(_) => labels - &named,
        })
    }

    fn binary(&mut self, binary: &BinaryExpr) -> Result<Option<Labels>, String> {
        let (left, right) = (self.result_of(&binary.lhs)?, self.result_of(&binary.rhs)?);
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (left, right) => return Ok(left.or(right)),
        };
        let modifier = binary.modifier.as_ref();
        let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
        let on = |query: &mut Self, side: &Labels| {
            matching.map_or_else(
                || Ok(side.clone()),
                |matching| match matching {
                    LabelModifier::Include(_) => query.modified(side, matching),
                    // Only one side has to have what is ignored.
                    LabelModifier::Exclude(ignored) => {
                        Ok(side.iter().filter(|label| !ignored.labels.contains(label)).cloned().collect())
                    }
                },
            )
        };
        let (left_on, right_on) = (on(self, &left)?, on(self, &right)?);
        if left_on != right_on {
            return Err(format!("sides that cannot match: by {left_on:?} and by {right_on:?}"));
        }
        Ok(Some(match modifier.map(|modifier| &modifier.card) {
            Some(VectorMatchCardinality::ManyToMany | VectorMatchCardinality::ManyToOne(_)) => left,
            Some(VectorMatchCardinality::OneToMany(_)) => right,
            Some(VectorMatchCardinality::OneToOne) | None => left_on,
        }))
    }

    fn has(&mut self, labels: &Labels, label: &str) -> Result<(), String> {
        self.named.insert(label.to_owned());
        if labels.contains(label) { Ok(()) } else { Err(format!("there is no label {label} among {labels:?}")) }
    }
}

/// What the agent tells, and what the CSI driver does.
pub fn catalogue() -> impl Iterator<Item = MetricDef> {
    defs::METRICS.into_iter().chain(fsi_csi::metrics::METRICS)
}

/// The metric of which this is a series, and whether it has bounds.
fn metric(name: &str) -> Option<(MetricDef, bool)> {
    let is_histogram = |metric: &MetricDef| metric.kind == MetricKind::Histogram;
    let named = |name: &str| catalogue().find(|metric| metric.name == name);
    if let Some(metric) = named(name).filter(|metric| !is_histogram(metric)) {
        return Some((metric, false));
    }
    ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| {
        let metric = named(name.strip_suffix(suffix)?).filter(is_histogram)?;
        Some((metric, suffix == "_bucket"))
    })
}

/// Refuses a value that a label of few values never has.
fn known_value(matcher: &Matcher) -> Result<(), String> {
    let known: BTreeSet<String> = match matcher.name.as_str() {
        defs::LABEL_OUTCOME => {
            let lists: [&[&str]; 6] = [
                &defs::SPAN_OUTCOMES,
                &defs::OTLP_OUTCOMES,
                &defs::THROTTLE_OUTCOMES,
                &defs::REPORT_OUTCOMES,
                &defs::RELOAD_OUTCOMES,
                &fsi_csi::metrics::DEATHS_OUTCOMES,
            ];
            lists.concat().into_iter().map(str::to_owned).collect()
        }
        defs::LABEL_STAGE => defs::losses().map(|(stage, _reason)| stage.to_owned()).collect(),
        defs::LABEL_REASON => defs::losses().map(|(_stage, reason)| reason.to_owned()).collect(),
        defs::LABEL_ERRNO => (1..=MAX_ERRNO).map(|code| errno::name(code).into_owned()).collect(),
        defs::LABEL_EVENT => {
            fsi_agent::attribution::counters::Counter::ALL.iter().map(|counter| counter.name().to_owned()).collect()
        }
        LABEL_CODE => (0..=LAST_CODE).map(|code| format!("{:?}", Code::from_i32(code))).collect(),
        _ => return Ok(()),
    };
    let values: Vec<&str> = match matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    match values.iter().find(|value| !known.contains(**value)) {
        Some(value) => Err(format!("{} is never {value}", matcher.name)),
        None => Ok(()),
    }
}
