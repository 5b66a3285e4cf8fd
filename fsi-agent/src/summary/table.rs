//! Plain text tables: columns padded to their widest cell; a column without any text in its rows is left out.

/// Where a cell's text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// A head and rows of as many cells.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    aligns: [Align; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// `>` in front of a head's text puts its column to the right.
    pub(crate) fn new(heads: [&str; N]) -> Self {
        let aligns = heads.map(|head| if head.starts_with('>') { Align::Right } else { Align::Left });
        Self { aligns, rows: vec![heads.map(|head| head.trim_start_matches('>').to_owned())] }
    }

    pub(crate) fn row(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }

    /// Nothing for a column that is left out.
    fn widths(&self) -> [Option<usize>; N] {
        let mut widths = [0; N];
        let mut is_empty = [self.rows.len() > 1; N];
        for (at, row) in self.rows.iter().enumerate() {
            for (column, cell) in row.iter().enumerate() {
                widths[column] = widths[column].max(cell.chars().count());
                is_empty[column] &= at == 0 || cell.is_empty();
            }
        }
        std::array::from_fn(|column| (!is_empty[column]).then_some(widths[column]))
    }

    /// Columns that all columns but `column` take, with the gaps.
    pub(crate) fn width_without(&self, column: usize) -> usize {
        let widths = self.widths();
        let others = widths.iter().enumerate().filter(|(at, _)| *at != column);
        others.filter_map(|(_, width)| *width).map(|width| width + GAP).sum()
    }

    /// Shortens the cells of one column.
    pub(crate) fn map_column(&mut self, column: usize, change: impl Fn(&str) -> String) {
        for row in self.rows.iter_mut().skip(1) {
            row[column] = change(&row[column]);
        }
    }

    /// Lines without a line end, the head first.
    pub(crate) fn lines(&self) -> Vec<String> {
        let widths = self.widths();
        self.rows.iter().map(|row| self.line(row, &widths)).collect()
    }

    fn line(&self, row: &[String; N], widths: &[Option<usize>; N]) -> String {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let Some(width) = widths[at] else { continue };
            if !line.is_empty() {
                line.push_str(&" ".repeat(GAP));
            }
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            match self.aligns[at] {
                Align::Left => line.extend([cell.as_str(), &padding]),
                Align::Right => line.extend([&padding, cell.as_str()]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Spaces between columns.
const GAP: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pads_by_characters() {
        let mut table = Table::new(["name", ">n"]);
        table.row(["ü".to_owned(), "1,000".to_owned()]);
        assert_eq!(table.lines(), ["name      n", "ü     1,000"]);
        assert_eq!(table.width_without(0), 7);
    }

    #[test]
    fn a_column_without_text_is_left_out() {
        let mut table = Table::new(["name", ">n", "why"]);
        assert_eq!(table.lines(), ["name  n  why"]);
        table.row(["a".to_owned(), String::new(), "so".to_owned()]);
        assert_eq!(table.lines(), ["name  why", "a     so"]);
        assert_eq!(table.width_without(0), 5);
    }
}
