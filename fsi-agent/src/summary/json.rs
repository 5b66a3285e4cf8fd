//! The summary as one JSON document: what [`Summary`] holds, under the name and version of its schema.

use serde::Serialize;

use super::Summary;

/// Changes when a field changes its meaning or goes away; new fields do not change it.
pub const SCHEMA: &str = "fsi.observe/1";

#[derive(Serialize)]
struct Document<'a> {
    schema: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
}

/// The document, with line breaks.
///
/// # Errors
/// It cannot be written as JSON; there is no such summary.
pub fn document(summary: &Summary) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Document { schema: SCHEMA, summary })
}
