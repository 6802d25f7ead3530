//! NonMaxSuppression.

use serde::{Deserialize, Serialize};

use super::{f32s, i64s, refused};
use crate::{Result, Tensor};

/// Of boxes `[images, boxes, 4]` with scores `[images, classes, boxes]` those that overlap no better one of
/// their class, as `[selected, 3]`: image, class, box. Then the inputs that are given: how many at most of a
/// class, how much they may overlap, and which score is too low.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NonMaxSuppression {
    /// What the four numbers of a box are.
    pub boxes: Boxes,
    /// Which of the further inputs are given.
    pub given: [bool; 3],
}

/// What the four numbers of a box are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boxes {
    /// `[y1, x1, y2, x2]` of any two opposite corners.
    Corners,
    /// `[x, y, width, height]` around the centre.
    Centres,
}

/// A box by its lower and upper ends along both axes.
type Ends = [[f32; 2]; 2];

impl NonMaxSuppression {
    pub(super) fn compute(self, inputs: &[&Tensor]) -> Result<Tensor> {
        let [boxes, scores, further @ ..] = inputs else {
            return Err(refused("NonMaxSuppression needs boxes and scores"));
        };
        let (&[images, count, 4], &[score_images, classes, score_count]) =
            (boxes.shape(), scores.shape())
        else {
            return Err(unfit(boxes, scores));
        };
        if (images, count) != (score_images, score_count) {
            return Err(unfit(boxes, scores));
        }
        let mut further = further.iter();
        let [most, overlap, score] = self.given.map(|given| further.next().filter(|_| given));
        let most = most.map_or(Ok(0), |tensor| one(i64s(tensor)?))?;
        let most = usize::try_from(most).unwrap_or(0);
        let overlap = overlap.map_or(Ok(0.0), |tensor| one(f32s(tensor)?))?;
        let least_score = score.map(|tensor| one(f32s(tensor)?)).transpose()?;
        let (boxes, scores) = (f32s(boxes)?, f32s(scores)?);
        let mut selected = Vec::new();
        for (image, class) in (0..images).flat_map(|i| (0..classes).map(move |c| (i, c))) {
            let scores = &scores[(image * classes + class) * count..][..count];
            let mut order: Vec<usize> = (0..count)
                .filter(|&at| least_score.is_none_or(|least| scores[at] > least))
                .collect();
            // Of equal scores the first box comes first.
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            let mut kept: Vec<Ends> = Vec::new();
            for at in order {
                if kept.len() == most {
                    break;
                }
                let ends = self.boxes.ends(&boxes[(image * count + at) * 4..][..4]);
                if kept.iter().all(|other| overlap_of(ends, *other) <= overlap) {
                    kept.push(ends);
                    selected.extend([image as i64, class as i64, at as i64]);
                }
            }
        }
        Tensor::new(vec![selected.len() / 3, 3], selected)
    }
}

fn unfit(boxes: &Tensor, scores: &Tensor) -> crate::RuntimeError {
    let (boxes, scores) = (boxes.shape(), scores.shape());
    refused(format!("boxes of shape {boxes:?} and scores of shape {scores:?} do not go together"))
}

fn one<T: Copy>(values: &[T]) -> Result<T> {
    values
        .first()
        .copied()
        .ok_or_else(|| refused("NonMaxSuppression is told a bound without value"))
}

impl Boxes {
    fn ends(self, numbers: &[f32]) -> Ends {
        let &[a, b, c, d] = numbers else { return [[0.0; 2]; 2] };
        match self {
            Boxes::Corners => [[a.min(c), a.max(c)], [b.min(d), b.max(d)]],
            Boxes::Centres => [[b - d / 2.0, b + d / 2.0], [a - c / 2.0, a + c / 2.0]],
        }
    }
}

/// The area that two boxes have in common, of that which they cover together.
fn overlap_of(a: Ends, b: Ends) -> f32 {
    let common = |axis: usize| (a[axis][1].min(b[axis][1]) - a[axis][0].max(b[axis][0])).max(0.0);
    let area = |ends: Ends| (ends[0][1] - ends[0][0]) * (ends[1][1] - ends[1][0]);
    let both = common(0) * common(1);
    if both <= 0.0 || area(a) <= 0.0 || area(b) <= 0.0 {
        return 0.0;
    }
    both / (area(a) + area(b) - both)
}
