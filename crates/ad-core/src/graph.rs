//! The computational graph of a tape, as text for drawing programs.

use std::fmt::Write;

use crate::formula::{Accent, DIGITS, Formulas, Script};
use crate::ops::Op;
use crate::tape::Tape;

/// The computational graph of a tape; from [`Tape::graph`].
///
/// Nodes are inputs, parameters, operations and outputs; edges lead from an
/// operand to the row that reads it. Constants stand inside the operations. A
/// call of a function with several results is a node of its own, which the
/// operands lead to and the results come from.
#[derive(Debug, Clone)]
pub struct Graph {
    nodes: Vec<GraphNode>,
    edges: Vec<(usize, usize)>,
}

/// A node of a [`Graph`].
#[derive(Debug, Clone)]
struct GraphNode {
    id: String,
    label: String,
    shape: Shape,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Input,
    Parameter,
    Operation,
    Call,
    Output,
}

impl Tape {
    /// The computational graph.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0], |x| x[0].sin())?;
    /// assert_eq!(tape.graph().to_mermaid(), "\
    /// flowchart TD
    ///     n0([\"v₀ = x₁\"])
    ///     n1[\"v₁ = sin(v₀)\"]
    ///     y1{{\"y = v₁\"}}
    ///     n0 --> n1
    ///     n1 --> y1
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    ///
    /// A function that is called shows by its name:
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let polar = Tape::record(&[1.0, 1.0], |v| [v[0] * v[1].cos(), v[0] * v[1].sin()])?.named("polar");
    /// let tape = Tape::record(&[1.0, 2.0], |v| polar.call(v))?;
    /// assert_eq!(tape.graph().to_mermaid(), "\
    /// flowchart TD
    ///     n0([\"v₋₁ = x₁\"])
    ///     n1([\"v₀ = x₂\"])
    ///     n2[\"v₁ = polar(v₋₁, v₀)₁\"]
    ///     n3[\"v₂ = polar(v₋₁, v₀)₂\"]
    ///     f2[[\"polar\"]]
    ///     y1{{\"y₁ = v₁\"}}
    ///     y2{{\"y₂ = v₂\"}}
    ///     n0 --> f2
    ///     n1 --> f2
    ///     f2 --> n2
    ///     f2 --> n3
    ///     n2 --> y1
    ///     n3 --> y2
    /// ");
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn graph(&self) -> Graph {
        let data = &*self.data;
        // Constants are no nodes, so node i is value i + the number of constants.
        let first = data.first_input();
        let mut graph = Graph { nodes: Vec::new(), edges: Vec::new() };
        let mut calls = Vec::new();
        for value in first..data.num_values() {
            let name = data.value_name(value, Accent::None).render(Script::Unicode, DIGITS);
            let (label, shape) = match value.checked_sub(data.first_row()) {
                Some(row) => {
                    let shape = if data.num_results(row) == 1 && data.op(row) == Op::Call {
                        Shape::Call
                    } else {
                        Shape::Operation
                    };
                    (format!("{name} = {}", data.row_formula(row, &Formulas::new())), shape)
                }
                None if value >= data.first_param() => (name, Shape::Parameter),
                None => (format!("{name} = {}", data.variable_name(value)), Shape::Input),
            };
            graph.nodes.push(GraphNode { id: format!("n{}", value - first), label, shape });
            if let Some(row) = value.checked_sub(data.first_row()) {
                let (head, result) = data.head(row);
                let mut reader = value - first;
                if let Some(function) = data.function(head).filter(|function| function.num_results() > 1) {
                    if result == 0 {
                        let label = function.to_string();
                        calls.push(GraphNode { id: format!("f{}", value - first), label, shape: Shape::Call });
                    }
                    // The nodes of calls follow those of values.
                    reader = data.num_values() - first + calls.len() - 1;
                }
                if result == 0 || data.op(head) != Op::Call {
                    let operands = data.operands(head).iter().filter(|&&operand| operand as usize >= first);
                    graph.edges.extend(operands.map(|&operand| (operand as usize - first, reader)));
                }
                if reader != value - first {
                    graph.edges.push((reader, value - first));
                }
            }
        }
        graph.nodes.append(&mut calls);
        for (position, &output) in data.outputs.iter().enumerate() {
            let label = format!("{} = {}", data.output_name(position), data.operand_name(output));
            if output as usize >= first {
                graph.edges.push((output as usize - first, graph.nodes.len()));
            }
            graph.nodes.push(GraphNode { id: format!("y{}", position + 1), label, shape: Shape::Output });
        }
        graph
    }
}

impl Graph {
    /// The graph in the language of Graphviz.
    ///
    /// ```
    /// # use ad_core::Tape;
    /// let tape = Tape::record(&[2.0], |x| x[0].sin())?;
    /// assert!(tape.graph().to_dot().contains("n0 -> n1;"));
    /// # Ok::<(), ad_core::Error>(())
    /// ```
    pub fn to_dot(&self) -> String {
        let mut text = String::from("digraph tape {\n    rankdir=TB;\n");
        for node in &self.nodes {
            let shape = match node.shape {
                Shape::Input => "box, style=rounded",
                Shape::Parameter => "box, style=dashed",
                Shape::Operation => "ellipse",
                Shape::Call => "component",
                Shape::Output => "box",
            };
            let label = node.label.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(text, "    {} [label=\"{label}\", shape={shape}];", node.id);
        }
        for &(from, to) in &self.edges {
            let _ = writeln!(text, "    {} -> {};", self.nodes[from].id, self.nodes[to].id);
        }
        text + "}\n"
    }

    /// The graph as a Mermaid flowchart.
    pub fn to_mermaid(&self) -> String {
        let mut text = String::from("flowchart TD\n");
        for node in &self.nodes {
            let (open, close) = match node.shape {
                Shape::Input => ("([", "])"),
                Shape::Parameter => ("[/", "/]"),
                Shape::Operation => ("[", "]"),
                Shape::Call => ("[[", "]]"),
                Shape::Output => ("{{", "}}"),
            };
            // Mermaid writes special characters as entities that start with #.
            let label =
                node.label.replace('#', "#35;").replace('"', "#quot;").replace('<', "#lt;").replace('>', "#gt;");
            let _ = writeln!(text, "    {}{open}\"{label}\"{close}", node.id);
        }
        for &(from, to) in &self.edges {
            let _ = writeln!(text, "    {} --> {}", self.nodes[from].id, self.nodes[to].id);
        }
        text
    }
}
