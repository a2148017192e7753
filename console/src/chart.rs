//! A line over time, as SVG. Its numbers are for the eye only: the page has the exact ones as text.

/// The width of the drawing, in its own units.
pub const WIDTH: u32 = 600;
/// The height of the drawing.
pub const HEIGHT: u32 = 120;
/// The room above and below the line, for its width.
const MARGIN: f64 = 4.0;

/// A line.
pub struct Chart {
    pub title: String,
    /// The last value.
    pub latest: String,
    /// What the line shows, for readers that do not see it.
    pub description: String,
    /// The points as SVG has them.
    pub points: String,
    /// The height of zero. Empty if the line is far from it.
    pub zero_y: String,
    /// What stands below the left end.
    pub from: String,
    /// What stands below the right end.
    pub to: String,
}

/// A value and its text.
#[derive(Clone, Debug)]
pub struct Point {
    /// The position from left to right, such as a sequence or seconds.
    pub at: f64,
    pub value: f64,
    pub text: String,
}

impl Chart {
    /// The line through these points, in order of `at`. None if there are fewer than two.
    pub fn new(title: &str, points: &[Point], [from, to]: [String; 2]) -> Option<Self> {
        let ([first, .., last], [_, _, ..]) = (points, points) else { return None };
        let least = points.iter().min_by(|a, b| a.value.total_cmp(&b.value))?;
        let most = points.iter().max_by(|a, b| a.value.total_cmp(&b.value))?;
        let width = (last.at - first.at).max(f64::MIN_POSITIVE);
        let height = most.value - least.value;
        let y = |value: f64| {
            let part = if height > 0.0 { (value - least.value) / height } else { 0.5 };
            (f64::from(HEIGHT) - MARGIN).mul_add(1.0 - part, MARGIN * part)
        };
        let x = |at: f64| (at - first.at) / width * f64::from(WIDTH);
        let texts: Vec<_> =
            points.iter().map(|it| format!("{:.1},{:.1}", x(it.at), y(it.value))).collect();
        let has_zero = least.value <= 0.0 && most.value >= 0.0 && height > 0.0;
        Some(Self {
            title: title.to_owned(),
            latest: last.text.clone(),
            description: format!(
                "{title}, {} values: first {}, last {}, least {}, most {}",
                points.len(),
                first.text,
                last.text,
                least.text,
                most.text
            ),
            points: texts.join(" "),
            zero_y: if has_zero { format!("{:.1}", y(0.0)) } else { String::new() },
            from,
            to,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64]) -> Option<Chart> {
        let points = values.iter().enumerate();
        let points: Vec<_> = points
            .map(|(at, value)| Point { at: at as f64, value: *value, text: value.to_string() })
            .collect();
        Chart::new("Balance", &points, [String::new(), String::new()])
    }

    #[test]
    fn a_line_fills_the_drawing() {
        let line = chart(&[-10.0, 0.0, 10.0]).unwrap();
        assert_eq!(line.points, "0.0,116.0 300.0,60.0 600.0,4.0");
        assert_eq!(line.zero_y, "60.0");
        assert!(line.description.ends_with("first -10, last 10, least -10, most 10"));
        let level = chart(&[5.0, 5.0]).unwrap();
        assert_eq!((&*level.points, &*level.zero_y), ("0.0,60.0 600.0,60.0", ""));
        assert!(chart(&[1.0]).is_none() && chart(&[]).is_none());
    }
}
