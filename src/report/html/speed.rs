//! The picture of how fast a step moved bytes: an area of rates, a line of how much was under way at once.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::escape::escaped;
use crate::report::speed::Speed;
use crate::units::{Rate, Span};

const WIDTH: f64 = 1080.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 86.0;
const RIGHT: f64 = 52.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 28.0;

/// The pictures of all steps that have one.
pub(super) fn pictures(speeds: &[Speed], out: &mut String) {
    if speeds.is_empty() {
        return;
    }
    out.push_str("<h2>Throughput</h2>\n");
    for speed in speeds {
        let _ = write!(
            out,
            "<div class=\"speed\"><p><code>{}</code> <span class=\"soft\">{}</span></p>",
            escaped(speed.step.as_str()),
            speed.words()
        );
        out.push_str(&svg(speed));
        out.push_str(
            "<div class=\"key\"><span><i class=\"rate\"></i>bytes per second</span><span><i class=\"mean\"></i>average</span>",
        );
        if speed.most_at_once().is_some() {
            out.push_str("<span><i class=\"many\"></i>requests at once (right)</span>");
        }
        if !speed.seams.is_empty() {
            out.push_str("<span>┊ a later attempt; the time between is left out</span>");
        }
        out.push_str("</div></div>\n");
    }
}

/// A step of a scale that people can read: 1, 2 or 5 times a power of the base's.
fn stride(highest: f64, base: f64, lines: f64) -> f64 {
    let wanted = (highest / lines).max(f64::MIN_POSITIVE);
    let mut unit = 1.0;
    while unit * base <= wanted {
        unit *= base;
    }
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    steps.iter().map(|step| step * unit).find(|step| *step >= wanted).unwrap_or(unit * base)
}

/// Strides of time: seconds, minutes, hours, days.
fn time_stride(seconds: f64) -> f64 {
    const STRIDES: [f64; 19] = [
        0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0,
        43_200.0, 86_400.0,
    ];
    let wanted = seconds / 9.0;
    STRIDES.into_iter().find(|stride| *stride >= wanted).unwrap_or_else(|| (wanted / 86_400.0).ceil() * 86_400.0)
}

fn svg(speed: &Speed) -> String {
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let step = stride(speed.highest(), 1024.0, 4.0);
    let top = (speed.highest() / step).ceil().max(1.0) * step;
    let x = |seconds: f64| LEFT + width * seconds / speed.seconds;
    let y = |rate: f64| TOP + height * (1.0 - rate / top);
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"throughput of {}: {}\">",
        escaped(speed.step.as_str()),
        speed.words()
    );
    let mut line = 0.0;
    while line <= top * 1.001 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative, and saturates")]
        let label = if line == 0.0 { "0".to_owned() } else { Rate(line as u64).to_string().replace(".0 ", " ") };
        let at = y(line);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT + width,
            LEFT - 8.0,
            at + 4.0
        );
        line += step;
    }
    let every = time_stride(speed.seconds);
    let mut tick = 0.0;
    while tick <= speed.seconds * 1.001 {
        let label = if tick == 0.0 { "0".to_owned() } else { Span(Duration::from_secs_f64(tick)).to_string() };
        let at = x(tick);
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            TOP + height,
            TOP + height + 5.0,
            TOP + height + 20.0
        );
        tick += every;
    }
    area(speed, &x, &y, y(0.0), &mut svg);
    let mean = y(speed.average());
    let _ = write!(svg, "<line class=\"mean\" x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{mean:.1}\" y2=\"{mean:.1}\"/>", LEFT + width);
    for seam in &speed.seams {
        let at = x(*seam);
        let _ = write!(svg, "<line class=\"seam\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>", TOP + height);
    }
    if let Some(most) = speed.most_at_once().filter(|most| *most > 0) {
        at_once(speed, most, &x, LEFT + width, TOP + height, height, &mut svg);
    }
    svg.push_str("</svg>");
    svg
}

/// The rates as steps: each is an average over its time, and nothing is known in between.
fn area(speed: &Speed, x: &dyn Fn(f64) -> f64, y: &dyn Fn(f64) -> f64, ground: f64, svg: &mut String) {
    let mut path = format!("M{:.1} {ground:.1}", x(0.0));
    for bin in &speed.bins {
        let _ = write!(path, "V{:.1}H{:.1}", y(bin.rate), x(bin.to));
    }
    let _ = write!(path, "V{ground:.1}Z");
    let _ = write!(svg, "<path class=\"rate\" d=\"{path}\"/>");
}

fn at_once(speed: &Speed, most: u64, x: &dyn Fn(f64) -> f64, right: f64, ground: f64, height: f64, svg: &mut String) {
    // Below the rates' top, so that a level that stays does not lie on the frame.
    let top = most as f64 * 1.15;
    let y = |count: u64| ground - height * count as f64 / top;
    let mut path = String::new();
    for bin in &speed.bins {
        let Some(count) = bin.at_once else { continue };
        if path.is_empty() {
            let _ = write!(path, "M{:.1} {:.1}", x(bin.from), y(count));
        }
        let _ = write!(path, "V{:.1}H{:.1}", y(count), x(bin.to));
    }
    let _ = write!(svg, "<path class=\"many\" d=\"{path}\"/>");
    for count in [most, most / 2] {
        if count > 0 {
            let _ = write!(svg, "<text class=\"many\" x=\"{:.1}\" y=\"{:.1}\">{count}</text>", right + 8.0, y(count) + 4.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_round_steps() {
        for (highest, wanted) in
            [(3.0, 1.0), (900.0, 500.0), (14.2 * 1_048_576.0, 5.0 * 1_048_576.0), (7.9e9, 2.0 * 1_073_741_824.0)]
        {
            assert!((stride(highest, 1024.0, 4.0) - wanted).abs() < 1e-6, "{highest}: {}", stride(highest, 1024.0, 4.0));
        }
        assert!((time_stride(13.4) - 2.0).abs() < 1e-9 && (time_stride(86_400.0) - 14_400.0).abs() < 1e-9);
    }
}
