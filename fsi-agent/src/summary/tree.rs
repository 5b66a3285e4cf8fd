//! The span tree as a drawing: processes, their files, and what was done, equal operations in a row folded into one line.
//!
//! Spans arrive when they end, so most children come before their parents: they wait under their parent's id. What outlives its
//! parent finds it at the end. Memory is bounded; what is over it is counted and said.

mod draw;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::span::{OpSpan, Path, Span, SpanBody, SpanId};

/// Lines that are kept over all.
const MAX_LINES: usize = 20_000;
/// Lines of operations under one file or process.
const MAX_UNDER_ONE: usize = 200;

/// Collects spans.
#[derive(Debug, Default)]
pub struct TreeBuilder {
    children: HashMap<SpanId, Children>,
    roots: Children,
    lines: usize,
}

/// A tree that is complete.
#[derive(Debug)]
pub struct Tree {
    roots: Vec<Node>,
    /// Operations and files for which there was no room.
    left_out: u64,
}

/// What is under one span, in the order in which it ended.
#[derive(Debug, Default)]
struct Children {
    nodes: Vec<Node>,
    left_out: u64,
}

#[derive(Debug)]
struct Node {
    start_unix_ns: u64,
    content: Content,
    children: Vec<Self>,
    left_out: u64,
}

#[derive(Debug)]
enum Content {
    Span(Arc<Span>),
    Operations(Operations),
}

/// Equal operations in a row.
#[derive(Debug)]
struct Operations {
    first: Arc<Span>,
    count: u64,
    duration_ns: u64,
    max_ns: u64,
    bytes: u64,
}

impl TreeBuilder {
    /// Takes a finished span.
    pub fn span(&mut self, span: &Arc<Span>) {
        match &span.body {
            SpanBody::Operation(operation) => self.operation(span, operation),
            SpanBody::File(_) | SpanBody::Process(_) => self.parent(span),
        }
    }

    fn operation(&mut self, span: &Arc<Span>, operation: &OpSpan) {
        let siblings = siblings(&mut self.children, &mut self.roots, span.parent);
        // Behind an operation that was left out nothing is in a row any more.
        if siblings.left_out == 0
            && let Some(Node { content: Content::Operations(last), .. }) = siblings.nodes.last_mut()
            && last.takes(span, operation)
        {
            last.add(operation);
            return;
        }
        if siblings.nodes.len() >= MAX_UNDER_ONE || self.lines >= MAX_LINES {
            siblings.left_out += 1;
            return;
        }
        self.lines += 1;
        siblings.nodes.push(Node {
            start_unix_ns: span.start_unix_ns,
            content: Content::Operations(Operations::new(span, operation)),
            children: Vec::new(),
            left_out: 0,
        });
    }

    fn parent(&mut self, span: &Arc<Span>) {
        let under = self.children.remove(&span.id).unwrap_or_default();
        let siblings = siblings(&mut self.children, &mut self.roots, span.parent);
        if self.lines >= MAX_LINES {
            siblings.left_out += 1 + under.all_left_out();
            return;
        }
        self.lines += 1;
        siblings.nodes.push(Node {
            start_unix_ns: span.start_unix_ns,
            content: Content::Span(Arc::clone(span)),
            children: under.nodes,
            left_out: under.left_out,
        });
    }

    /// Nothing comes any more.
    #[must_use]
    pub fn finish(self) -> Tree {
        let Self { mut children, roots, lines: _ } = self;
        let mut parents = HashSet::new();
        spans_of(&roots.nodes, &mut parents);
        children.values().for_each(|waiting| spans_of(&waiting.nodes, &mut parents));
        let Children { nodes: mut all, mut left_out } = roots;
        // What waits for a parent that never came stands for itself.
        for (_, orphans) in children.extract_if(|parent, _| !parents.contains(parent)) {
            left_out += orphans.left_out;
            all.extend(orphans.nodes);
        }
        adopt(&mut all, &mut children);
        sort(&mut all);
        Tree { roots: all, left_out }
    }
}

/// The spans that others can be under.
fn spans_of(nodes: &[Node], spans: &mut HashSet<SpanId>) {
    for node in nodes {
        if let Content::Span(span) = &node.content {
            spans.insert(span.id);
        }
        spans_of(&node.children, spans);
    }
}

/// Puts what came later than its parent under it.
fn adopt(nodes: &mut [Node], waiting: &mut HashMap<SpanId, Children>) {
    for node in nodes {
        if let Content::Span(span) = &node.content
            && let Some(late) = waiting.remove(&span.id)
        {
            node.children.extend(late.nodes);
            node.left_out += late.left_out;
        }
        adopt(&mut node.children, waiting);
    }
}

fn siblings<'a>(
    children: &'a mut HashMap<SpanId, Children>,
    roots: &'a mut Children,
    parent: Option<SpanId>,
) -> &'a mut Children {
    match parent {
        Some(parent) => children.entry(parent).or_default(),
        None => roots,
    }
}

fn sort(nodes: &mut [Node]) {
    nodes.sort_by_key(|node| node.start_unix_ns);
    for node in nodes {
        sort(&mut node.children);
    }
}

impl Children {
    /// With everything below.
    fn all_left_out(&self) -> u64 {
        self.left_out + self.nodes.iter().map(Node::operations).sum::<u64>()
    }
}

impl Node {
    /// Operations and files in this node and below.
    fn operations(&self) -> u64 {
        let own = match &self.content {
            Content::Span(_) => 1,
            Content::Operations(operations) => operations.count,
        };
        own + self.left_out + self.children.iter().map(Self::operations).sum::<u64>()
    }
}

impl Operations {
    fn new(span: &Arc<Span>, operation: &OpSpan) -> Self {
        Self {
            first: Arc::clone(span),
            count: 1,
            duration_ns: operation.duration_ns,
            max_ns: operation.duration_ns,
            bytes: operation.bytes.unwrap_or(0),
        }
    }

    /// Same operation, same result, same paths.
    fn takes(&self, span: &Span, operation: &OpSpan) -> bool {
        let SpanBody::Operation(first) = &self.first.body else { return false };
        let same = |a: &Option<Path>, b: &Option<Path>| a.as_ref().map(|p| &p.bytes) == b.as_ref().map(|p| &p.bytes);
        first.op == operation.op
            && first.errno == operation.errno
            && self.first.actor.tgid == span.actor.tgid
            && same(&first.path, &operation.path)
            && same(&first.target, &operation.target)
    }

    fn add(&mut self, operation: &OpSpan) {
        self.count += 1;
        self.duration_ns += operation.duration_ns;
        self.max_ns = self.max_ns.max(operation.duration_ns);
        self.bytes += operation.bytes.unwrap_or(0);
    }
}

#[cfg(test)]
mod tests;
