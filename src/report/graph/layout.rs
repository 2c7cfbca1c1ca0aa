//! Places a layered graph on a plane: ranks are given, order within a rank by barycentres, positions by least squares.
//!
//! After Sugiyama, Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures" (1981), with
//! the positions of each sweep found by isotonic regression (pool adjacent violators).

/// How often the order and the positions are improved.
const SWEEPS: usize = 12;
/// Long edges get a bend in every rank they cross, up to this many in all; beyond it they go straight.
const MOST_BENDS: usize = 20_000;

/// Where things are.
#[derive(Debug)]
pub(super) struct Layout {
    /// The centre of each node.
    pub x: Vec<f64>,
    /// For each edge: the positions at which it crosses the ranks between its ends.
    pub bends: Vec<Vec<f64>>,
    pub width: f64,
}

/// A node, or the bend of an edge.
struct Vertex {
    rank: usize,
    width: f64,
    above: Vec<usize>,
    below: Vec<usize>,
    is_bend: bool,
}

/// Places nodes of these widths and ranks. Every edge leads to a higher rank.
pub(super) fn layout(widths: &[f64], ranks: &[usize], edges: &[(usize, usize)], gap: f64) -> Layout {
    let mut vertices: Vec<Vertex> = widths
        .iter()
        .zip(ranks)
        .map(|(&width, &rank)| Vertex { rank, width, above: Vec::new(), below: Vec::new(), is_bend: false })
        .collect();
    let bends_wanted: usize = edges.iter().map(|&(from, to)| ranks[to].saturating_sub(ranks[from] + 1)).sum();
    let with_bends = bends_wanted <= MOST_BENDS;
    let mut chains = Vec::with_capacity(edges.len());
    for &(from, to) in edges {
        let mut last = from;
        let mut chain = Vec::new();
        if with_bends {
            for rank in ranks[from] + 1..ranks[to] {
                vertices.push(Vertex { rank, width: 10.0, above: Vec::new(), below: Vec::new(), is_bend: true });
                let bend = vertices.len() - 1;
                join(&mut vertices, last, bend);
                chain.push(bend);
                last = bend;
            }
        }
        join(&mut vertices, last, to);
        chains.push(chain);
    }

    let mut rows = vec![Vec::new(); ranks.iter().max().map_or(0, |most| most + 1)];
    for (vertex, place) in vertices.iter().enumerate() {
        rows[place.rank].push(vertex);
    }
    order(&vertices, &mut rows);
    let x = positions(&vertices, &rows, gap);

    let left = (0..vertices.len()).map(|v| x[v] - vertices[v].width / 2.0).fold(f64::INFINITY, f64::min);
    let right = (0..vertices.len()).map(|v| x[v] + vertices[v].width / 2.0).fold(f64::NEG_INFINITY, f64::max);
    let left = if left.is_finite() { left } else { 0.0 };
    Layout {
        x: x[..widths.len()].iter().map(|x| x - left).collect(),
        bends: chains.iter().map(|chain| chain.iter().map(|&bend| x[bend] - left).collect()).collect(),
        width: if right.is_finite() { right - left } else { 0.0 },
    }
}

fn join(vertices: &mut [Vertex], from: usize, to: usize) {
    vertices[from].below.push(to);
    vertices[to].above.push(from);
}

/// Orders each row by the mean place of the neighbours in the row before, down and up; the best order is kept.
fn order(vertices: &[Vertex], rows: &mut Vec<Vec<usize>>) {
    let mut place = vec![0_usize; vertices.len()];
    let number = |rows: &[Vec<usize>], place: &mut [usize]| {
        for row in rows {
            for (at, &vertex) in row.iter().enumerate() {
                place[vertex] = at;
            }
        }
    };
    number(rows, &mut place);
    let mut best = rows.clone();
    let mut fewest = crossings(vertices, rows, &place);
    for sweep in 0..SWEEPS {
        if fewest == 0 {
            break;
        }
        let down = sweep % 2 == 0;
        let count = rows.len();
        for step in 1..count {
            let row = if down { step } else { count - 1 - step };
            let mean = |vertex: usize| {
                let near = if down { &vertices[vertex].above } else { &vertices[vertex].below };
                if near.is_empty() {
                    place[vertex] as f64
                } else {
                    near.iter().map(|&other| place[other] as f64).sum::<f64>() / near.len() as f64
                }
            };
            let mut keyed: Vec<(f64, usize)> = rows[row].iter().map(|&vertex| (mean(vertex), vertex)).collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            rows[row] = keyed.into_iter().map(|(_, vertex)| vertex).collect();
            for (at, &vertex) in rows[row].iter().enumerate() {
                place[vertex] = at;
            }
        }
        let crossed = crossings(vertices, rows, &place);
        if crossed < fewest {
            fewest = crossed;
            best.clone_from(rows);
        }
    }
    *rows = best;
}

/// How many pairs of edges cross: inversions, counted with a Fenwick tree.
fn crossings(vertices: &[Vertex], rows: &[Vec<usize>], place: &[usize]) -> usize {
    let mut count = 0;
    for pair in rows.windows(2) {
        let mut tree = vec![0_usize; pair[1].len() + 1];
        let mut seen = 0;
        for &upper in &pair[0] {
            let mut ends: Vec<usize> = vertices[upper]
                .below
                .iter()
                .filter(|&&v| vertices[v].rank == vertices[upper].rank + 1)
                .map(|&v| place[v])
                .collect();
            ends.sort_unstable();
            for &end in &ends {
                let (mut at, mut not_after) = (end + 1, 0);
                while at > 0 {
                    not_after += tree[at];
                    at &= at - 1;
                }
                count += seen - not_after;
            }
            for end in ends {
                let mut at = end + 1;
                while at < tree.len() {
                    tree[at] += 1;
                    at += at & at.wrapping_neg();
                }
                seen += 1;
            }
        }
    }
    count
}

/// The position of each vertex: as near to its neighbours as the order and the widths of its row allow.
fn positions(vertices: &[Vertex], rows: &[Vec<usize>], gap: f64) -> Vec<f64> {
    let mut x = vec![0.0; vertices.len()];
    for row in rows {
        let mut at = 0.0;
        for &vertex in row {
            x[vertex] = at + vertices[vertex].width / 2.0;
            at += vertices[vertex].width + gap;
        }
        // The first rows stand centred above each other.
        for &vertex in row {
            x[vertex] -= at / 2.0;
        }
    }
    for sweep in 0..SWEEPS * 2 {
        let down = sweep % 2 == 0;
        for step in 0..rows.len() {
            let row = &rows[if down { step } else { rows.len() - 1 - step }];
            let wanted: Vec<(f64, f64)> = row
                .iter()
                .map(|&vertex| {
                    let it = &vertices[vertex];
                    let near: Vec<usize> = match (sweep < SWEEPS, down) {
                        (true, true) => it.above.clone(),
                        (true, false) => it.below.clone(),
                        (false, _) => it.above.iter().chain(&it.below).copied().collect(),
                    };
                    if near.is_empty() {
                        return (x[vertex], 0.2);
                    }
                    let mean = near.iter().map(|&other| x[other]).sum::<f64>() / near.len() as f64;
                    // A bend that stands still keeps a long edge straight.
                    (mean, if it.is_bend && near.iter().any(|&other| vertices[other].is_bend) { 8.0 } else { 1.0 })
                })
                .collect();
            let mut offset = 0.0;
            let offsets: Vec<f64> = row
                .iter()
                .enumerate()
                .map(|(at, &vertex)| {
                    if at > 0 {
                        let before = &vertices[row[at - 1]];
                        let both_bend = before.is_bend && vertices[vertex].is_bend;
                        offset += f64::midpoint(before.width, vertices[vertex].width) + if both_bend { gap / 2.0 } else { gap };
                    }
                    offset
                })
                .collect();
            let fitted =
                isotonic(&wanted.iter().zip(&offsets).map(|(&(at, weight), offset)| (at - offset, weight)).collect::<Vec<_>>());
            for ((&vertex, at), offset) in row.iter().zip(fitted).zip(&offsets) {
                x[vertex] = at + offset;
            }
        }
    }
    x
}

/// The non-decreasing sequence nearest to these weighted values.
fn isotonic(values: &[(f64, f64)]) -> Vec<f64> {
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(values.len());
    for &(value, weight) in values {
        pools.push((value, weight, 1));
        while let [.., before, last] = pools.as_slice()
            && before.0 > last.0
        {
            let weight = before.1 + last.1;
            let merged = ((before.0 * before.1 + last.0 * last.1) / weight, weight, before.2 + last.2);
            pools.truncate(pools.len() - 2);
            pools.push(merged);
        }
    }
    pools.into_iter().flat_map(|(value, _, count)| std::iter::repeat_n(value, count)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overlaps_and_a_chain_is_straight() {
        let widths = [100.0, 60.0, 80.0, 100.0, 50.0];
        let ranks = [0, 1, 1, 2, 3];
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4), (0, 4)];
        let placed = layout(&widths, &ranks, &edges, 20.0);
        assert!((placed.x[2] - placed.x[1]).abs() >= 90.0 - 1e-6, "{placed:?}");
        assert_eq!(placed.bends[5].len(), 2);
        let chain = layout(&[10.0, 90.0, 30.0], &[0, 1, 2], &[(0, 1), (1, 2)], 20.0);
        assert!(chain.x.iter().all(|x| (x - chain.x[0]).abs() < 1.0), "{chain:?}");
    }

    #[test]
    fn crossings_that_can_be_avoided_are() {
        // 0→3, 1→2 cross in the order in which they are given.
        let placed = layout(&[10.0; 4], &[0, 0, 1, 1], &[(0, 3), (1, 2)], 10.0);
        assert_eq!(placed.x[0] < placed.x[1], placed.x[3] < placed.x[2]);
    }

    #[test]
    fn an_empty_graph_has_no_width() {
        assert!(layout(&[], &[], &[], 10.0).width.abs() < f64::EPSILON);
    }
}
