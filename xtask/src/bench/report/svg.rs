//! A report as a picture: a panel for each figure, with a bar for each median and a whisker from the least to the most.

use std::fmt::Write as _;

use super::{
    Better, Figure, Report,
    number::{number, short},
};

const WIDTH: f64 = 960.0;
/// Where the bars begin: left of it are the conditions.
const LEFT: f64 = 270.0;
/// Where the scale ends: right of it are the values.
const RIGHT: f64 = 850.0;
const BAR: f64 = 14.0;
const BETWEEN_BARS: f64 = 3.0;
const BETWEEN_CELLS: f64 = 14.0;
const LINE: f64 = 20.0;

/// One for each program; they can be told apart on white and on black.
const COLOURS: [&str; 6] = [
    "#2f81f7", "#d29922", "#3fb950", "#db61a2", "#8957e5", "#8b949e",
];

const STYLE: &str = "<style>\
     text{font:13px sans-serif;fill:#1f2328}.title{font-weight:bold}.end{text-anchor:end}.middle{text-anchor:middle}\
     .paper{fill:#fff}.grid{stroke:#d1d9e0}.axis,.whisker{stroke:#1f2328;fill:none}\
     @media(prefers-color-scheme:dark){text{fill:#f0f6fc}.paper{fill:#0d1117}.grid{stroke:#3d444d}.axis,.whisker{stroke:#f0f6fc}}\
     </style>";

impl Report {
    /// The picture, a whole SVG file, readable on light and on dark.
    pub(crate) fn svg(&self) -> String {
        let programs = self.programs();
        let mut body = String::new();
        let mut y = LINE + 4.0;
        text(&mut body, (16.0, y), "title", &self.name);
        y += LINE;
        let mut x = 16.0;
        for (program, colour) in programs.iter().zip(COLOURS.iter().cycle()) {
            rect(&mut body, (x, y - 11.0), (12.0, 12.0), colour);
            text(&mut body, (x + 18.0, y), "", program);
            x += 36.0 + 8.0 * program.chars().count() as f64;
        }
        for figure in &self.figures {
            y = figure.draw(&programs, y + 1.5 * LINE, &mut body);
        }
        let height = y + LINE;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n\
             <title>{}</title>\n{STYLE}\n<rect class=\"paper\" width=\"{WIDTH}\" height=\"{height}\"/>\n{body}</svg>\n",
            escape(&self.what)
        )
    }

    /// Every program once, in the order of their first rows.
    fn programs(&self) -> Vec<&str> {
        let mut programs = Vec::new();
        let cells = self.figures.iter().flat_map(|figure| &figure.cells);
        for row in cells.flat_map(|cell| &cell.rows) {
            if !programs.contains(&row.program.as_str()) {
                programs.push(&row.program);
            }
        }
        programs
    }
}

impl Figure {
    /// Draws the panel from `y` down, and returns where it ends.
    fn draw(&self, programs: &[&str], mut y: f64, body: &mut String) -> f64 {
        let better = match self.better {
            Better::Less => "less",
            Better::More => "more",
        };
        let title = format!("{} ({better} is better)", self.name);
        text(body, (16.0, y), "title", &title);
        y += 10.0;
        let ticks = ticks(self.most());
        let most = ticks.last().copied().unwrap_or(1.0);
        let scale = |value: f64| LEFT + (RIGHT - LEFT) * (value / most).clamp(0.0, 1.0);
        let top = y;
        let (mut bars, mut cell_top) = (String::new(), y + BETWEEN_CELLS / 2.0);
        for cell in &self.cells {
            let height = cell.rows.len() as f64 * (BAR + BETWEEN_BARS);
            let middle = cell_top + height / 2.0 + 4.0;
            text(&mut bars, (LEFT - 10.0, middle), "end", &cell.label);
            for judged in cell.judge(self.better) {
                let median = judged.spread.median;
                let at = programs.iter().position(|name| *name == judged.row.program);
                let colour = COLOURS[at.unwrap_or(0) % COLOURS.len()];
                let end = if median.is_finite() {
                    scale(median)
                } else {
                    LEFT
                };
                rect(&mut bars, (LEFT, cell_top), (end - LEFT, BAR), colour);
                let (least, most) = (judged.spread.least, judged.spread.most);
                let mut right = end;
                if least.is_finite() && least < most {
                    right = scale(most);
                    let centre = cell_top + BAR / 2.0;
                    let (up, down, from) = (centre - 4.0, centre + 4.0, scale(least));
                    let _infallible = writeln!(
                        bars,
                        "<path class=\"whisker\" d=\"M{from:.1} {up:.1}V{down:.1}M{from:.1} {centre:.1}H{right:.1}M{right:.1} {up:.1}V{down:.1}\"/>"
                    );
                }
                let value = (right + 6.0, cell_top + BAR - 3.0);
                text(&mut bars, value, "", &number(median));
                cell_top += BAR + BETWEEN_BARS;
            }
            cell_top += BETWEEN_CELLS;
        }
        let bottom = cell_top - BETWEEN_CELLS / 2.0;
        for tick in &ticks {
            let x = scale(*tick);
            let _infallible = writeln!(
                body,
                "<path class=\"grid\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"
            );
            text(body, (x, bottom + 16.0), "middle", &short(*tick));
        }
        body.push_str(&bars);
        let _infallible = writeln!(
            body,
            "<path class=\"axis\" d=\"M{LEFT} {top:.1}V{bottom:.1}H{RIGHT}\"/>"
        );
        let centre = f64::midpoint(LEFT, RIGHT);
        let axis = format!("{}, {}", self.name, self.unit);
        text(body, (centre, bottom + 34.0), "middle", &axis);
        bottom + 34.0
    }

    /// The greatest value that is drawn.
    fn most(&self) -> f64 {
        let cells = self.cells.iter();
        let judged = cells.flat_map(|cell| cell.judge(self.better));
        let values = judged.flat_map(|judged| [judged.spread.median, judged.spread.most]);
        values.filter(|value| value.is_finite()).fold(0.0, f64::max)
    }
}

/// Round numbers from 0 to the first that is not below `most`; four to ten of them.
fn ticks(most: f64) -> Vec<f64> {
    if !(most.is_finite() && most > 0.0) {
        return vec![0.0, 1.0];
    }
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0]
        .into_iter()
        .map(|digit| digit * power)
        .rfind(|step| most / step >= 3.0)
        .unwrap_or(power);
    let count = (most / step - 1e-9).ceil() as u32;
    (0..=count).map(|n| f64::from(n) * step).collect()
}

fn rect(body: &mut String, (x, y): (f64, f64), (width, height): (f64, f64), colour: &str) {
    let _infallible = writeln!(
        body,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
    );
}

fn text(body: &mut String, (x, y): (f64, f64), class: &str, content: &str) {
    let content = escape(content);
    let _infallible = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{content}</text>"
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::{super::tests::example, *};

    #[test]
    fn ticks_are_round_and_reach_the_greatest_value() {
        assert_eq!(ticks(4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks(815.0), [0.0, 250.0, 500.0, 750.0, 1000.0]);
        assert_eq!(ticks(0.0), [0.0, 1.0]);
        for most in [0.003, 0.9, 1.0, 7.3, 99.0, 12_345.0] {
            let ticks = ticks(most);
            let last = ticks.last().copied().unwrap_or(0.0);
            assert!(
                last >= most * 0.999_999 && last <= most * 1.5,
                "{most}: {ticks:?}"
            );
            assert!((4..=11).contains(&ticks.len()), "{most}: {ticks:?}");
        }
    }

    #[test]
    fn a_bar_is_as_long_as_its_median_and_the_whisker_goes_from_least_to_most() {
        let svg = example().svg();
        // The scale of the first figure ends at 3, 580 points from its beginning: a median of 2 is two thirds.
        let two_thirds = format!(
            "width=\"{:.1}\" height=\"14.0\" fill=\"{}\"",
            580.0 * 2.0 / 3.0,
            COLOURS[0]
        );
        assert!(svg.contains(&two_thirds), "{svg}");
        let (least, most) = (270.0 + 580.0 / 3.0, 850.0);
        assert!(svg.contains(&format!("M{least:.1} ")), "{svg}");
        assert!(svg.contains(&format!("H{most:.1}M")), "{svg}");
    }

    #[test]
    fn axes_have_units_texts_are_escaped_and_what_never_came_has_no_bar() {
        let svg = example().svg();
        for text in [
            ">goodput, Gbit/s<",
            ">time, ms<",
            "Two programs &lt;in turn&gt;.",
            ">50 ms, 1 % loss<",
            ">never<",
            "prefers-color-scheme:dark",
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        assert!(svg.contains("width=\"0.0\" height=\"14.0\""), "{svg}");
        assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn each_program_has_one_colour_in_every_panel() {
        let svg = example().svg();
        // Legend, and two bars each; quinn has one.
        let count = |colour: usize| svg.matches(COLOURS[colour]).count();
        assert_eq!([count(0), count(1), count(2)], [3, 3, 2]);
    }
}
