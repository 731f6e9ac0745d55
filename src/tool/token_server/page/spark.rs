//! The throughput of the last hour as bars, a minute each.

use super::draw::grouped;
use crate::tool::report::html::Html;

const HEIGHT: f64 = 60.0;

/// Nothing where nothing was done.
pub(super) fn bars(html: &mut Html, minutes: &[i64]) {
    let most = minutes.iter().copied().max().unwrap_or(0);
    if most < 1 {
        return;
    }
    let total: i64 = minutes.iter().sum();
    let last = minutes.len() - 1;
    html.add(format_args!(
        "<figure>\n<svg viewBox=\"0 0 {} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{} done in the last {} minutes, at most {} in one\">\n",
        minutes.len() * 10,
        grouped(total),
        minutes.len(),
        grouped(most)
    ));
    for (at, done) in minutes.iter().enumerate().filter(|(_, done)| **done > 0) {
        // A minute with one token in it is seen beside one with a thousand.
        let height = (*done as f64 / most as f64 * HEIGHT).max(1.5);
        let class = if at == last { " class=\"running\"" } else { "" };
        html.add(format_args!(
            "<rect{class} x=\"{}\" y=\"{:.1}\" width=\"8\" height=\"{height:.1}\"><title>{}: {}</title></rect>\n",
            at * 10 + 1,
            HEIGHT - height,
            if at == last { "this minute".to_owned() } else { format!("{} min ago", last - at) },
            grouped(*done)
        ));
    }
    html.add(format_args!(
        "</svg>\n<figcaption><span>{} min ago</span><span>at most {} a minute</span><span>now</span></figcaption>\n</figure>\n",
        minutes.len(),
        grouped(most)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_with_work_is_a_bar() {
        let draw = |minutes: &[i64]| {
            let mut html = Html::default();
            bars(&mut html, minutes);
            html.to_string()
        };
        assert_eq!(draw(&[0; 60]), "");
        let drawn = draw(&[0, 1000, 1, 500]);
        assert_eq!(drawn.matches("<rect").count(), 3);
        assert!(drawn.contains("x=\"11\" y=\"0.0\" width=\"8\" height=\"60.0\"><title>2 min ago: 1,000<"), "{drawn}");
        assert!(drawn.contains("x=\"21\" y=\"58.5\" width=\"8\" height=\"1.5\"><title>1 min ago: 1<"), "{drawn}");
        assert!(drawn.contains("class=\"running\" x=\"31\" y=\"30.0\""), "{drawn}");
        assert!(drawn.contains("1,501 done in the last 4 minutes"), "{drawn}");
    }
}
