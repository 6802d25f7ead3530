//! Where labels go, so that none hides a dot or another label.

use super::svg::At;

/// A letter of a label: its mean width, what is free beside a label, and the height of a line.
const LETTER: f64 = 6.8;
const BESIDE: f64 = 3.0;
const LINE: f64 = 13.0;
/// Half the side of what a dot covers.
const DOT: f64 = 5.0;
/// How far a label may be from its dot: close, or else further.
const DISTANCES: [f64; 2] = [2.0, 9.0];
/// To which side it lies, nicest first: above, right, left, below, and between.
const SIDES: [(f64, f64); 8] = [
    (0.0, -1.0),
    (1.0, 0.0),
    (-1.0, 0.0),
    (0.0, 1.0),
    (1.0, -1.0),
    (-1.0, -1.0),
    (1.0, 1.0),
    (-1.0, 1.0),
];

/// An upright rectangle: left, top, right, bottom.
#[derive(Clone, Copy)]
pub(super) struct Area(pub f64, pub f64, pub f64, pub f64);

impl Area {
    fn around((x, y): At, half_width: f64, half_height: f64) -> Area {
        Area(x - half_width, y - half_height, x + half_width, y + half_height)
    }

    fn meets(&self, other: &Area) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }

    fn within(&self, frame: &Area) -> bool {
        self.0 >= frame.0 && self.1 >= frame.1 && self.2 <= frame.2 && self.3 <= frame.3
    }
}

/// Room in which labels find their places one after the other.
pub(super) struct Room {
    frame: Area,
    taken: Vec<Area>,
}

impl Room {
    /// Room inside `frame`, where dots lie already.
    pub(super) fn new(frame: Area, dots: impl Iterator<Item = At>) -> Room {
        Room { frame, taken: dots.map(|dot| Area::around(dot, DOT, DOT)).collect() }
    }

    /// The middle of the base line of a label for the dot at `dot`; none where every place near it
    /// is taken.
    pub(super) fn place(&mut self, (x, y): At, label: &str) -> Option<At> {
        let half_width = (LETTER * label.chars().count() as f64 + BESIDE) / 2.0;
        let half_height = LINE / 2.0;
        let centers = DISTANCES.iter().flat_map(|distance| {
            SIDES.iter().map(move |(right, down)| {
                let reach = DOT + distance;
                (x + right * (reach + half_width), y + down * (reach + half_height))
            })
        });
        let free = centers.into_iter().find(|center| {
            let area = Area::around(*center, half_width, half_height);
            area.within(&self.frame) && !self.taken.iter().any(|taken| taken.meets(&area))
        })?;
        self.taken.push(Area::around(free, half_width, half_height));
        Some((free.0, free.1 + LINE / 2.0 - 2.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_leave_dots_and_each_other_alone() {
        let dots: Vec<At> = (0..8).map(|i| (100.0 + 11.0 * f64::from(i), 100.0)).collect();
        let mut room = Room::new(Area(0.0, 0.0, 400.0, 200.0), dots.iter().copied());
        for dot in &dots {
            assert!(room.place(*dot, "4").is_some());
        }
        for (i, label) in room.taken.iter().enumerate().skip(dots.len()) {
            assert!(room.taken[..i].iter().all(|other| !other.meets(label)));
        }
    }

    #[test]
    fn a_crowd_is_not_labelled() {
        let dots = vec![(50.0, 50.0); 40];
        let mut room = Room::new(Area(0.0, 0.0, 100.0, 100.0), dots.iter().copied());
        let placed = dots.iter().filter(|dot| room.place(**dot, "long label").is_some()).count();
        assert!((1..10).contains(&placed), "{placed}");
    }
}
