//! Answers that stay until what they were made of has changed.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

const MAX_ANSWERS: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");

/// By question; each with the generation that it was made in.
#[derive(Debug)]
pub(super) struct Memo<K, V>(Mutex<LruCache<K, (u64, Arc<V>)>>)
where
    K: Eq + Hash;

impl<K: Eq + Hash, V> Default for Memo<K, V> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(MAX_ANSWERS)))
    }
}

impl<K: Clone + Eq + Hash, V> Memo<K, V> {
    /// The answer of this generation, made anew if need be. That there is none is not kept.
    pub(super) fn get(&self, generation: u64, question: &K, answer: impl FnOnce() -> Option<V>) -> Option<Arc<V>> {
        if let Some((made_in, kept)) = self.kept().get(question)
            && *made_in == generation
        {
            return Some(Arc::clone(kept));
        }
        let answer = Arc::new(answer()?);
        self.kept().put(question.clone(), (generation, Arc::clone(&answer)));
        Some(answer)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, LruCache<K, (u64, Arc<V>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_made_once_in_a_generation() {
        let memo = Memo::<u8, u8>::default();
        assert_eq!(memo.get(1, &7, || None), None);
        assert_eq!(memo.get(1, &7, || Some(1)).as_deref(), Some(&1), "that there was none is not kept");
        assert_eq!(memo.get(1, &7, || Some(2)).as_deref(), Some(&1));
        assert_eq!(memo.get(2, &7, || Some(2)).as_deref(), Some(&2));
    }
}
