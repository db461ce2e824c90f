//! Curves as SVG: one function from a list of points to a picture, without a drawing library.

use super::escape;
use crate::outcome::number;
use crate::{Error, Record, files};
use ad_core::Rule;
use std::fmt::Write;
use std::path::Path;

/// Curves over a common axis, drawn as SVG: losses, accuracies, rates.
///
/// Axes are labelled with round numbers. A point that is NaN or infinite leaves a gap, and so does one that is not above
/// 0 on a logarithmic axis; a line below the chart says how many there were. Curves differ in colour (of Okabe and Ito,
/// for colour-blind eyes) and in the pattern of the line. A curve of more points than the chart is wide keeps, in each
/// column of pixels, the first, the last, the lowest and the highest, so that no peak is lost. The same points make the
/// same bytes on every machine. All text is escaped.
///
/// # Example
///
/// ```
/// use ad_optim::report::Chart;
///
/// let loss = |start: f64| (0..50).map(move |epoch| (f64::from(epoch), start * 0.9_f64.powi(epoch)));
/// let svg = Chart::new("Loss")
///     .x_label("epoch")
///     .y_label("mean cross-entropy")
///     .log_y()
///     .line("training", loss(1.0))
///     .line("held out", loss(1.5))
///     .to_svg();
/// assert!(svg.starts_with("<svg ") && svg.contains(">held out</text>"));
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "a chart is drawn by to_svg or write"]
pub struct Chart {
    title: String,
    x_label: String,
    y_label: String,
    log_y: bool,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq)]
struct Line {
    name: String,
    points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 800.0;
const PLOT_HEIGHT: f64 = 360.0;
const LEFT: f64 = 92.0;
const RIGHT: f64 = 28.0;
const PLOT_WIDTH: f64 = WIDTH - LEFT - RIGHT;
const BELOW: f64 = 66.0;
const NOTE_HEIGHT: f64 = 18.0;

/// Colours of Okabe and Ito, the darker ones first.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];
const DASHES: [&str; 4] = ["", "8 4", "2 3", "10 3 2 3"];

impl Chart {
    /// A chart without curves, with linear axes without labels.
    pub fn new(title: &str) -> Chart {
        Chart {
            title: title.to_owned(),
            x_label: String::new(),
            y_label: String::new(),
            log_y: false,
            lines: Vec::new(),
        }
    }

    /// The value of a run over its epochs, or over its steps if steps are what was recorded.
    ///
    /// The axis of the values is logarithmic if all finite ones are above 0 and the largest is more than twice the
    /// smallest.
    ///
    /// ```
    /// use ad_optim::report::Chart;
    /// use ad_optim::{GradientDescent, Trainer, from_fn};
    ///
    /// let f = from_fn(1, |x, grad| { grad[0] = 2.0 * x[0]; x[0] * x[0] });
    /// let out = Trainer::new(&f, GradientDescent::new(0.25), vec![8.0]).max_steps(20).run()?;
    /// let svg = Chart::of_history("Descent", &out.history).to_svg();
    /// assert!(svg.contains(">value (log scale)</text>"));
    /// # Ok::<(), ad_optim::Error>(())
    /// ```
    pub fn of_history(title: &str, history: &[Record]) -> Chart {
        let steps = history.windows(2).any(|pair| pair[0].epoch == pair[1].epoch);
        let at = |record: &Record| if steps { record.step } else { record.epoch };
        let all = history.iter().flat_map(|record| [Some(record.value), record.validation]).flatten();
        let finite = all.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, 0.0_f64), |(low, high), y| (low.min(y), high.max(y)));
        let chart = Chart::new(title)
            .x_label(if steps { "step" } else { "epoch" })
            .y_label("value")
            .line("value", history.iter().map(|record| (at(record) as f64, record.value)));
        let validation: Vec<_> =
            history.iter().filter_map(|record| Some((at(record) as f64, record.validation?))).collect();
        let chart = if validation.is_empty() { chart } else { chart.line("validation", validation) };
        if low > 0.0 && high / 2.0 > low { chart.log_y() } else { chart }
    }

    /// Sets what the horizontal axis is called.
    pub fn x_label(mut self, label: &str) -> Chart {
        self.x_label = label.to_owned();
        self
    }

    /// Sets what the vertical axis is called.
    pub fn y_label(mut self, label: &str) -> Chart {
        self.y_label = label.to_owned();
        self
    }

    /// Makes the vertical axis logarithmic, as becomes losses, which fall by orders of magnitude.
    pub fn log_y(mut self) -> Chart {
        self.log_y = true;
        self
    }

    /// Adds a curve through `points`, each an (x, y), in their order.
    pub fn line(mut self, name: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Chart {
        self.lines.push(Line { name: name.to_owned(), points: points.into_iter().collect() });
        self
    }

    /// The title.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Writes the chart to a file, all or nothing: a file of that name stays as it was until the new one is whole.
    ///
    /// # Errors
    ///
    /// [`Error::Write`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        files::replace(path.as_ref(), self.to_svg().as_bytes())
    }

    /// The chart as an SVG element, which is a file as well as a part of a page.
    pub fn to_svg(&self) -> String {
        let drawable = |&&(x, y): &&(f64, f64)| x.is_finite() && y.is_finite() && !(self.log_y && y <= 0.0);
        let points = || self.lines.iter().flat_map(|line| line.points.iter().filter(drawable));
        let x = Axis::new(points().map(|&(x, _)| x), false, true);
        let y = Axis::new(points().map(|&(_, y)| y), self.log_y, false);

        let legend = self.legend();
        let top = 52.0 + legend.last().map_or(0.0, |entry| entry.y + 22.0);
        let notes = self.notes();
        let height = top + PLOT_HEIGHT + BELOW + NOTE_HEIGHT * notes.len() as f64;
        let place = |value: (f64, f64)| {
            (LEFT + PLOT_WIDTH * x.fraction(value.0), top + PLOT_HEIGHT * (1.0 - y.fraction(value.1)))
        };

        let mut svg = Svg(String::new());
        let title = escape(&self.title);
        svg.put(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#333\">"
        ));
        svg.put(&format!("<title>{title}</title>"));
        svg.put(&format!("<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>"));
        let size = (1.7 * PLOT_WIDTH / self.title.chars().count().max(1) as f64).clamp(9.0, 19.0);
        svg.text((LEFT + PLOT_WIDTH / 2.0, 30.0), "middle", &format!("font-size=\"{size:.1}\" fill=\"#000\""), &title);
        for entry in &legend {
            let (left, middle) = (LEFT + entry.x, 52.0 + entry.y);
            svg.put(&format!("<path d=\"M{left:.1} {middle:.1}h26\" stroke-width=\"2.5\" {}/>", style(entry.index)));
            svg.text((left + 33.0, middle + 4.5), "start", "", &escape(&entry.name));
        }

        let (bottom, right) = (top + PLOT_HEIGHT, LEFT + PLOT_WIDTH);
        for tick in x.ticks() {
            let at = LEFT + PLOT_WIDTH * x.fraction(tick.value);
            svg.put(&format!("<path d=\"M{at:.1} {top:.1}V{bottom:.1}\" stroke=\"{}\"/>", tick.colour()));
            svg.text((at, bottom + 19.0), "middle", "", &tick.label);
        }
        for tick in y.ticks() {
            let at = top + PLOT_HEIGHT * (1.0 - y.fraction(tick.value));
            svg.put(&format!("<path d=\"M{LEFT:.1} {at:.1}H{right:.1}\" stroke=\"{}\"/>", tick.colour()));
            svg.text((LEFT - 8.0, at + 4.5), "end", "", &tick.label);
        }
        svg.put(&format!(
            "<rect x=\"{LEFT:.1}\" y=\"{top:.1}\" width=\"{PLOT_WIDTH:.1}\" height=\"{PLOT_HEIGHT:.1}\" fill=\"none\" \
             stroke=\"#888\"/>"
        ));
        svg.text((LEFT + PLOT_WIDTH / 2.0, bottom + 44.0), "middle", "font-size=\"14\"", &escape(&self.x_label));
        let (at_x, at_y) = (22.0, top + PLOT_HEIGHT / 2.0);
        let y_label = match (self.y_label.is_empty(), self.log_y) {
            (true, true) => "log scale".to_owned(),
            (false, true) => format!("{} (log scale)", self.y_label),
            (_, false) => self.y_label.clone(),
        };
        let turned = format!("font-size=\"14\" transform=\"rotate(-90 {at_x:.1} {at_y:.1})\"");
        svg.text((at_x, at_y), "middle", &turned, &escape(&y_label));

        for (index, line) in self.lines.iter().enumerate() {
            let placed = line.points.iter().map(|point| Some(place(*point)).filter(|_| drawable(&point)));
            svg.curve(segments(placed), index);
        }
        if points().next().is_none() {
            let middle = (LEFT + PLOT_WIDTH / 2.0, top + PLOT_HEIGHT / 2.0);
            svg.text(middle, "middle", "font-size=\"15\"", "there is no point to draw");
        }
        for (row, note) in notes.iter().enumerate() {
            let at = (LEFT, bottom + BELOW + NOTE_HEIGHT * row as f64);
            svg.text(at, "start", "font-size=\"12\" fill=\"#666\"", &escape(note));
        }
        svg.put("</svg>");
        svg.0
    }

    /// Where the names of the curves stand, row by row; a curve without a name has none.
    fn legend(&self) -> Vec<LegendEntry> {
        let mut entries = Vec::new();
        let (mut x, mut y) = (0.0, 0.0);
        for (index, line) in self.lines.iter().enumerate().filter(|(_, line)| !line.name.is_empty()) {
            let name = shortened(&line.name, 80);
            // What a letter takes at this size, or a little more: there is no font to ask.
            let width = 33.0 + 7.4 * name.chars().count() as f64 + 22.0;
            if x > 0.0 && x + width > PLOT_WIDTH {
                (x, y) = (0.0, y + 20.0);
            }
            entries.push(LegendEntry { index, name, x, y });
            x += width;
        }
        entries
    }

    /// What is not drawn, curve by curve.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for line in &self.lines {
            let finite = |&&(x, y): &&(f64, f64)| x.is_finite() && y.is_finite();
            let non_finite = line.points.len() - line.points.iter().filter(finite).count();
            let below = line.points.iter().filter(finite).filter(|&&(_, y)| self.log_y && y <= 0.0).count();
            let name = if line.name.is_empty() { String::new() } else { format!("{}: ", shortened(&line.name, 50)) };
            let points = |count| format!("{count} {}", if count == 1 { "point" } else { "points" });
            if non_finite > 0 {
                notes.push(format!("{name}{} not finite, where the curve has gaps", points(non_finite)));
            }
            if below > 0 {
                notes.push(format!("{name}{} not above 0, which a log scale cannot show", points(below)));
            }
        }
        notes
    }
}

struct LegendEntry {
    index: usize,
    name: String,
    x: f64,
    y: f64,
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

/// Colour and pattern of the curve with this number.
fn style(index: usize) -> String {
    let colour = COLOURS[index % COLOURS.len()];
    // The pattern changes with the colour, so that a print in grey can be read. There are 24 pairs.
    let dash = DASHES[(index + index / 12) % DASHES.len()];
    let dash = if dash.is_empty() { String::new() } else { format!(" stroke-dasharray=\"{dash}\"") };
    format!("fill=\"none\" stroke=\"{colour}\"{dash}")
}

struct Svg(String);

impl Svg {
    fn put(&mut self, element: &str) {
        self.0.push_str(element);
        self.0.push('\n');
    }

    /// A text that was escaped before; nothing where it is empty.
    fn text(&mut self, (x, y): (f64, f64), anchor: &str, attributes: &str, escaped: &str) {
        if !escaped.is_empty() {
            let gap = if attributes.is_empty() { "" } else { " " };
            self.put(&format!(
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\"{gap}{attributes}>{escaped}</text>"
            ));
        }
    }

    fn curve(&mut self, segments: Vec<Vec<(f64, f64)>>, index: usize) {
        let mut path = String::new();
        for segment in &segments {
            for (i, (x, y)) in segment.iter().enumerate() {
                let _ = write!(path, "{}{x:.1} {y:.1}", if i == 0 { 'M' } else { 'L' });
            }
        }
        if segments.iter().any(|segment| segment.len() > 1) {
            self.put(&format!("<path d=\"{path}\" stroke-width=\"2\" stroke-linejoin=\"round\" {}/>", style(index)));
        }
        // A point without neighbours would make no line.
        for segment in segments.iter().filter(|segment| segment.len() == 1) {
            let (x, y) = segment[0];
            let colour = COLOURS[index % COLOURS.len()];
            self.put(&format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"));
        }
    }
}

/// The runs of points between gaps, no more of each than can be seen.
///
/// A gap that begins and ends within one column of pixels is too narrow to be seen, so no run is ended by it: there are
/// never more runs than columns.
fn segments(points: impl Iterator<Item = Option<(f64, f64)>>) -> Vec<Vec<(f64, f64)>> {
    let mut segments: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut gap = true;
    for point in points {
        let Some(point) = point else {
            gap = true;
            continue;
        };
        let column = |(x, _): (f64, f64)| x.floor();
        match segments.last_mut() {
            Some(segment) if !gap || segment.last().is_some_and(|&last| column(last) == column(point)) => {
                segment.push(point);
            }
            _ => segments.push(vec![point]),
        }
        gap = false;
    }
    segments.iter_mut().for_each(thin_out);
    segments
}

/// Keeps the first, the lowest, the highest and the last of neighbouring points in one column of pixels.
fn thin_out(segment: &mut Vec<(f64, f64)>) {
    let columns = segment.chunk_by(|a, b| a.0.floor() == b.0.floor());
    let kept = columns.flat_map(|column| {
        let by_height = |&(_, a): &(usize, f64), &(_, b): &(usize, f64)| a.total_cmp(&b);
        let heights = || column.iter().enumerate().map(|(i, &(_, y))| (i, y));
        let lowest = heights().min_by(by_height).map_or(0, |(i, _)| i);
        let highest = heights().max_by(by_height).map_or(0, |(i, _)| i);
        let mut kept = vec![0, lowest, highest, column.len() - 1];
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|i| column[i])
    });
    *segment = kept.collect();
}

/// The range of an axis; `low < high`, both finite, and above 0 if `log`.
struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Whether it counts, such as epochs, so that no tick should stand between two whole numbers.
    counts: bool,
}

struct Tick {
    value: f64,
    /// Empty for a line without a number.
    label: String,
}

impl Tick {
    fn colour(&self) -> &'static str {
        if self.label.is_empty() { "#f2f2f2" } else { "#dcdcdc" }
    }
}

impl Axis {
    /// The axis of finite values; `tight` for one that begins and ends with them.
    fn new(values: impl Iterator<Item = f64>, log: bool, tight: bool) -> Axis {
        let (mut low, mut high, mut whole) = (f64::INFINITY, f64::NEG_INFINITY, true);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
            whole &= value.fract() == 0.0;
        }
        let counts = whole && tight;
        if low > high {
            (low, high) = if log { (0.1, 1.0) } else { (0.0, 1.0) };
        }
        let clamp = |value: f64| value.clamp(f64::MIN, f64::MAX);
        if log {
            let pad = (log10(high / low) * 0.04).clamp(0.002, 8.0);
            // No value lies so near 0 that the edge could not lie below it, but the least one of all.
            let factor = Rule::powf(10.0, pad);
            (low, high) = ((low / factor).max(f64::from_bits(1)), clamp(high * factor));
            if low >= high {
                (low, high) = (f64::from_bits(1), f64::from_bits(16));
            }
        } else {
            // A range of no more than rounding errors is drawn as the constant that was meant.
            let span = high / 2.0 - low / 2.0;
            let least = 1e-12 * high.abs().max(low.abs());
            if span <= least {
                let pad = if low == 0.0 && high == 0.0 { 1.0 } else { 0.05 * high.abs().max(low.abs()) };
                let pad = if counts { pad.max(1.0) } else { pad.max(f64::MIN_POSITIVE) };
                (low, high) = (clamp(low - pad), clamp(high + pad));
            } else if !tight {
                let pad = 0.1 * span;
                // An axis does not go below 0 for the sake of a margin.
                let margin = if low >= 0.0 { low.min(pad) } else { pad };
                (low, high) = (clamp(low - margin), clamp(high + pad));
            }
        }
        Axis { low, high, log, counts }
    }

    /// Where on the axis a value lies, from 0 to 1.
    fn fraction(&self, value: f64) -> f64 {
        if self.log {
            let (low, high) = (log10(self.low), log10(self.high));
            return (log10(value) - low) / (high - low);
        }
        // In halves, since the whole range may overflow.
        (value / 2.0 - self.low / 2.0) / (self.high / 2.0 - self.low / 2.0)
    }

    fn ticks(&self) -> Vec<Tick> {
        if !self.log {
            return self.linear_ticks();
        }
        let (first, last) = (log10(self.low).floor() as i32, log10(self.high).ceil() as i32);
        let inside = |value: &f64| (self.low..=self.high).contains(value);
        let decades: Vec<i32> = (first..=last).filter(|&k| inside(&power(1, k))).collect();
        let within = |digits: &[u32]| {
            let all = (first..=last).flat_map(|k| digits.iter().map(move |&digit| power(digit, k)));
            all.filter(inside).collect::<Vec<_>>()
        };
        let labelled = match decades.len() {
            0..=1 if within(&[1, 2, 3, 5, 7]).len() < 3 => return self.linear_ticks(),
            0..=1 => within(&[1, 2, 3, 5, 7]),
            2..=3 => within(&[1, 2, 5]),
            count => {
                let stride = [1, 2, 5, 10, 20, 50].into_iter().find(|stride| count <= 8 * stride).unwrap_or(100) as i32;
                decades.iter().filter(|&&k| k.rem_euclid(stride) == 0).map(|&k| power(1, k)).collect()
            }
        };
        let minor = match decades.len() {
            0..=6 => within(&[1, 2, 3, 4, 5, 6, 7, 8, 9]),
            7..=16 => within(&[1]),
            _ => Vec::new(),
        };
        let minor = minor.into_iter().filter(|value| !labelled.contains(value));
        let minor: Vec<Tick> = minor.map(|value| Tick { value, label: String::new() }).collect();
        minor.into_iter().chain(labelled.iter().map(|&value| Tick { value, label: number(value, 3) })).collect()
    }

    /// About six multiples of 1, 2 or 5 times a power of 10.
    fn linear_ticks(&self) -> Vec<Tick> {
        let rough = (self.high / 6.0 - self.low / 6.0).max(f64::MIN_POSITIVE);
        let exponent = log10(rough).floor() as i32;
        let steps = [1, 2, 5, 10].map(|digit| power(digit, exponent));
        let mut step = steps.into_iter().find(|&step| step >= rough * 0.99).unwrap_or(rough);
        if self.counts {
            step = step.max(1.0);
        }
        let largest = self.low.abs().max(self.high.abs());
        // As many digits as tell neighbours apart.
        let digits = (log10(largest).floor() - log10(step).floor()).clamp(0.0, 15.0) as usize + 1;
        let first = (self.low / step).ceil();
        let values = (0..20).map(|i| (first + f64::from(i)) * step).take_while(|&value| value <= self.high);
        // The sum with 0 turns −0 into 0; and what is 0 but for rounding is 0.
        let round = |value: f64| if value.abs() < step * 1e-9 { 0.0 } else { value + 0.0 };
        values.map(round).map(|value| Tick { value, label: number(value, digits) }).collect()
    }
}

/// That of ad-core: the same bits on every machine, which the standard library does not promise.
fn log10(x: f64) -> f64 {
    Rule::log10(x)
}

/// The digit times 10^k to the last bit; `powi` is not that accurate.
fn power(digit: u32, k: i32) -> f64 {
    format!("{digit}e{k}").parse().unwrap_or(f64::NAN)
}
