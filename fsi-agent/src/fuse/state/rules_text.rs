//! The rules in force, as text, for the successor to arm again. Two areas: the new text is written beside the old one, then one
//! word says which counts.

use std::sync::atomic::Ordering;

use super::{AT_RULES, RULES, State, StateError, Word, table};

/// Longest text of rules, in bytes.
pub const MAX_RULES_BYTES: usize = (RULES - 1) * 8;

impl State {
    /// The text in force; empty when there are no rules.
    #[must_use]
    pub fn rules_text(&self) -> Vec<u8> {
        match self.word(Word::RulesArea).load(Ordering::Acquire) {
            area @ (1 | 2) => table::read_bytes(self.area(area)),
            _ => Vec::new(),
        }
    }

    /// Puts a text in force. One caller at a time.
    ///
    /// # Errors
    /// When it is too long.
    pub fn set_rules_text(&self, text: &[u8]) -> Result<(), StateError> {
        if text.len() > MAX_RULES_BYTES {
            return Err(StateError::TooLong { what: "the rules", bytes: text.len(), most: MAX_RULES_BYTES });
        }
        let next = if self.word(Word::RulesArea).load(Ordering::Acquire) == 1 { 2 } else { 1 };
        table::write_bytes(self.area(next), text);
        self.word(Word::RulesArea).store(next, Ordering::Release);
        Ok(())
    }

    fn area(&self, area: u64) -> &[std::sync::atomic::AtomicU64] {
        let at = if area == 1 { AT_RULES } else { AT_RULES + RULES };
        &self.memory.words()[at..at + RULES]
    }
}
