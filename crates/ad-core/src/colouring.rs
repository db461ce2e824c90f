//! Colourings of patterns: which columns, or rows, of a sparse derivative one
//! sweep can compute together.
//!
//! Source: A. H. Gebremedhin, F. Manne, A. Pothen, What color is your Jacobian?
//! Graph coloring for computing derivatives, SIAM Review 47 (2005).
//!
//! All of them colour one vertex after the other with the first colour that is
//! allowed, in several orders, and keep what takes the fewest colours; so they
//! are deterministic, and found in about the time that the pattern takes.

use std::collections::HashSet;

use crate::sparse::Sparsity;

/// No colour yet.
const NONE: usize = usize::MAX;

/// So many columns are coloured whatever the pattern.
const FEW: usize = 256;

/// The colour of each vertex, and how many colours there are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Colouring {
    pub colours: Vec<usize>,
    pub count: usize,
}

impl Colouring {
    fn new(colours: Vec<usize>) -> Colouring {
        let count = colours.iter().max().map_or(0, |last| last + 1);
        Colouring { colours, count }
    }

    /// Each vertex with a colour of its own.
    fn of_singles(count: usize) -> Colouring {
        Colouring::new((0..count).collect())
    }

    /// The one that takes fewer colours, the first one of equals.
    fn better(self, other: Colouring) -> Colouring {
        if other.count < self.count { other } else { self }
    }
}

/// The colours that a vertex may not have; the same memory serves all vertices.
struct Forbidden {
    /// For each colour the last vertex that it was forbidden for.
    by: Vec<usize>,
}

impl Forbidden {
    fn new(vertices: usize) -> Forbidden {
        Forbidden { by: vec![NONE; vertices] }
    }

    fn forbid(&mut self, colour: usize, vertex: usize) {
        if colour != NONE {
            self.by[colour] = vertex;
        }
    }

    /// The first colour that is allowed; one always is.
    fn first_allowed(&self, vertex: usize) -> usize {
        self.by.iter().position(|&by| by != vertex).unwrap_or(0)
    }
}

/// The vertices by falling degree, those of one degree in their order.
fn largest_first(degrees: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..degrees.len()).collect();
    order.sort_by_key(|&vertex| std::cmp::Reverse(degrees[vertex]));
    order
}

/// The length of the longest row: no colouring of the columns takes fewer colours.
pub(crate) fn longest_row(pattern: &Sparsity) -> usize {
    (0..pattern.rows()).map(|i| pattern.row(i).len()).max().unwrap_or(0).max(1)
}

/// Colours the columns of a pattern so that no two columns of one colour have a
/// nonzero in one row: a partial distance-2 colouring of the bipartite graph of
/// rows and columns.
///
/// The sum of the columns of a colour then has in each row one of its entries.
/// Where the longest row has nonzeros in more than half of the columns, and they
/// are not few, less than half of the sweeps can be saved, and the search would
/// take long: each column then has a colour of its own.
pub(crate) fn distance_2(pattern: &Sparsity) -> Colouring {
    let columns = pattern.cols();
    if columns > FEW && longest_row(pattern) * 2 > columns {
        return Colouring::of_singles(columns);
    }
    // Rows with the same nonzeros, as in dense blocks, forbid the same colours.
    let (mut seen, mut rows) = (HashSet::new(), Sparsity::empty(columns));
    for row in (0..pattern.rows()).map(|i| pattern.row(i)) {
        if seen.insert(row) {
            rows.push_row(row);
        }
    }
    let transposed = rows.transposed();
    let neighbours = |j: usize| transposed.row(j).iter().map(|&i| rows.row(i).len()).sum();
    let degrees: Vec<usize> = (0..columns).map(neighbours).collect();
    let in_order = distance_2_in(&rows, &transposed, 0..columns);
    in_order.better(distance_2_in(&rows, &transposed, largest_first(&degrees).into_iter()))
}

fn distance_2_in(pattern: &Sparsity, transposed: &Sparsity, order: impl Iterator<Item = usize>) -> Colouring {
    let mut colours = vec![NONE; pattern.cols()];
    let mut forbidden = Forbidden::new(pattern.cols());
    for j in order {
        for &i in transposed.row(j) {
            pattern.row(i).iter().for_each(|&other| forbidden.forbid(colours[other], j));
        }
        colours[j] = forbidden.first_allowed(j);
    }
    Colouring::new(colours)
}

/// Colours the columns of a symmetric pattern so that each entry, or the one
/// opposite it, stands alone in its row among the columns of its colour: a star
/// colouring of the graph with an edge for each pair of opposite entries off the
/// diagonal. Neighbours differ in colour, and every path of four vertices has at
/// least three colours.
///
/// Where more than half of the entries are nonzeros, and they are not few, each
/// column has a colour of its own.
pub(crate) fn star(pattern: &Sparsity) -> Colouring {
    let n = pattern.cols();
    if n > FEW && pattern.nonzeros() / n * 2 > n {
        return Colouring::of_singles(n);
    }
    let degrees: Vec<usize> = (0..n).map(|v| pattern.row(v).len()).collect();
    star_in(pattern, 0..n)
        .better(star_in(pattern, largest_first(&degrees).into_iter()))
        .better(star_in(pattern, smallest_last(pattern).into_iter()))
}

/// The order in which, from its end, each vertex has the fewest neighbours among
/// those before it.
fn smallest_last(pattern: &Sparsity) -> Vec<usize> {
    let n = pattern.cols();
    let mut degrees: Vec<usize> = (0..n).map(|v| pattern.row(v).len()).collect();
    // For each degree the vertices that had it once; those that have it no more are passed over.
    let mut by_degree = vec![Vec::new(); degrees.iter().max().map_or(0, |most| most + 1)];
    (0..n).for_each(|v| by_degree[degrees[v]].push(v));
    let (mut order, mut placed) = (Vec::with_capacity(n), vec![false; n]);
    let mut least = 0;
    while order.len() < n {
        let Some(v) = by_degree[least].pop() else {
            least += 1;
            continue;
        };
        if placed[v] || degrees[v] != least {
            continue;
        }
        placed[v] = true;
        order.push(v);
        for &w in pattern.row(v).iter().filter(|&&w| !placed[w]) {
            degrees[w] -= 1;
            by_degree[degrees[w]].push(w);
            least = least.min(degrees[w]);
        }
    }
    order.reverse();
    order
}

/// The neighbours of a vertex that have one colour.
#[derive(Debug, Clone, Copy)]
struct SameColour {
    colour: usize,
    /// One of them.
    first: usize,
    /// Whether there are others.
    several: bool,
    /// Whether one of them has two neighbours of this vertex's colour: it is the
    /// middle of a star in the two colours, and this vertex a tip.
    middle: bool,
}

/// What a star colouring knows of the colours around a vertex.
#[derive(Debug, Clone, Default)]
struct Around {
    /// By ascending colour.
    colours: Vec<SameColour>,
    /// The colours of middles.
    middles: Vec<usize>,
}

impl Around {
    /// The neighbours of a colour; `neighbour` is one of them.
    fn with_colour(&mut self, colour: usize, neighbour: usize) -> &mut SameColour {
        let at = self.colours.binary_search_by_key(&colour, |same| same.colour).unwrap_or_else(|at| {
            self.colours.insert(at, SameColour { colour, first: neighbour, several: false, middle: false });
            at
        });
        &mut self.colours[at]
    }

    /// Notes that a neighbour of a colour is the middle of a star that this vertex is a tip of.
    fn note_middle(&mut self, colour: usize, neighbour: usize) {
        if !std::mem::replace(&mut self.with_colour(colour, neighbour).middle, true) {
            self.middles.push(colour);
        }
    }
}

/// A vertex v may not have the colour of a vertex x if a neighbour w of v is one
/// of x, and the colour of w occurs a second time around v or around x: then
/// a path of four vertices would have two colours.
fn star_in(pattern: &Sparsity, order: impl Iterator<Item = usize>) -> Colouring {
    let n = pattern.cols();
    let mut colours = vec![NONE; n];
    let mut forbidden = Forbidden::new(n);
    let mut around = vec![Around::default(); n];
    for v in order {
        let neighbours = pattern.row(v).iter().copied().filter(|&w| w != v);
        for w in neighbours.clone().filter(|&w| colours[w] != NONE) {
            forbidden.forbid(colours[w], v);
            if around[v].with_colour(colours[w], w).several {
                around[w].colours.iter().for_each(|same| forbidden.forbid(same.colour, v));
            } else {
                around[w].middles.iter().for_each(|&middle| forbidden.forbid(middle, v));
            }
        }
        let colour = forbidden.first_allowed(v);
        colours[v] = colour;

        for w in neighbours {
            let same = around[w].with_colour(colour, v);
            same.several |= same.first != v;
            let SameColour { several, first, .. } = *same;
            if colours[w] == NONE {
                continue;
            }
            if several {
                // w is the middle of a star, with v and `first` among its tips.
                around[v].note_middle(colours[w], w);
                around[first].note_middle(colours[w], w);
            }
            if around[v].with_colour(colours[w], w).several {
                // v is the middle of a star, with w among its tips.
                around[w].note_middle(colour, v);
            }
        }
    }
    Colouring::new(colours)
}
