//! What weights are multiplied by.

mod windows;

use fewbits_engine::{RunOptions, Values};
use fewbits_quant::{Hessian, HessianObserver, Inputs, Matrix, QuantError};

use crate::data::Dataset;
use crate::layers::{Product, ProductKind};
use crate::layerwise::{Batch, LayerwiseRun};
use crate::padding::{Tokens, for_each_part};
use crate::{Error, Result};
use windows::Windows;

/// What weights are multiplied by: the data that shows it.
#[derive(Clone, Copy)]
pub struct Learning<'a> {
    /// Calibration data.
    pub data: &'a Dataset,
    /// How the model is run.
    pub run: &'a RunOptions,
}

/// Windows of a convolution that are looked at, evenly spread.
const WINDOWS: usize = 1 << 16;
/// Windows handed to an observer at a time.
const BLOCK: usize = 256;

/// What a product reads on the rows of a layerwise run that has come to it.
pub struct InputStatistics {
    product: Product,
    /// One for each group of a convolution.
    hessians: Vec<Hessian>,
}

/// Which positions of a batch count.
pub trait Counted {
    /// Those that are not only padding, where some are.
    fn tokens(&self) -> Option<&Tokens>;
}

impl Counted for Option<Tokens> {
    fn tokens(&self) -> Option<&Tokens> {
        self.as_ref()
    }
}

impl InputStatistics {
    /// Looks at the inputs of `product`, at which the run stands; `data` is named in errors.
    ///
    /// # Errors
    /// If there are none, or they hold NaN or infinities.
    pub fn of<T: Counted>(
        layerwise: &LayerwiseRun<T>,
        product: &Product,
        data: &Dataset,
    ) -> Result<InputStatistics> {
        let columns = product.inputs_per_output() * product.taps();
        let mut observers = vec![HessianObserver::new(columns); product.groups()];
        for batch in layerwise.batches() {
            observe(layerwise, batch, product, &mut observers)?;
        }
        let finished = observers.into_iter().map(HessianObserver::finish);
        let hessians =
            finished.collect::<fewbits_quant::Result<_>>().map_err(|source| match source {
                QuantError::Input { .. } | QuantError::NoRows => Error::Calibration {
                    path: data.path().to_path_buf(),
                    reason: format!(
                        "of '{}', which '{}' is multiplied by: {source}",
                        product.value, product.weight
                    ),
                },
                source => Error::Quant { tensor: product.weight.clone(), source },
            })?;
        Ok(InputStatistics { product: product.clone(), hessians })
    }

    /// Whether another product reads the same in the same way, as key and value do.
    pub fn serves(&self, other: &Product) -> bool {
        let plain = |p: &Product| !matches!(p.kind, ProductKind::Convolution { .. });
        let same = |a: &Product, b: &Product| a.value == b.value && a.inputs() == b.inputs();
        plain(&self.product) && plain(other) && same(&self.product, other)
    }

    /// One for each group of a convolution.
    pub fn hessians(&self) -> &[Hessian] {
        &self.hessians
    }

    /// As rounding wants to know it.
    ///
    /// # Errors
    /// If the weight is no matrix.
    pub fn inputs(&self, product: &Product) -> Result<Inputs<'_>> {
        let matrix = Matrix::new(&product.shape, product.output_axis())
            .map_err(|source| Error::Quant { tensor: product.weight.clone(), source })?;
        Ok(Inputs { matrix, hessians: &self.hessians })
    }
}

/// Shows the observers of a product's groups what it reads in a batch.
fn observe<T: Counted>(
    layerwise: &LayerwiseRun<T>,
    batch: &Batch<T>,
    product: &Product,
    observers: &mut [HessianObserver],
) -> Result<()> {
    let refused = |source| Error::Quant { tensor: product.weight.clone(), source };
    let Some(tensor) = batch.value(&product.value) else { return Ok(()) };
    let Values::F32(values) = tensor.values() else { return Ok(()) };
    let ProductKind::Convolution { .. } = product.kind else {
        return for_each_part(batch.about.tokens(), tensor.shape(), values, |_, part| {
            observers[0].observe(part).map_err(refused)
        });
    };
    let node = &layerwise.model().graph().node[product.node];
    let windows = Windows::of(node, &product.shape[2..], tensor.shape());
    let (Some(windows), &[images, ..]) = (windows, tensor.shape()) else { return Ok(()) };
    let rows: usize = layerwise.batches().iter().map(Batch::rows).sum();
    let step = (windows.per_image() * rows).div_ceil(WINDOWS).max(1);
    let picked: Vec<usize> = (0..windows.per_image() * images).step_by(step).collect();
    let image_len = values.len() / images.max(1);
    let per_group = product.inputs_per_output();
    let mut rows = Vec::new();
    for (group, observer) in observers.iter_mut().enumerate() {
        for picked in picked.chunks(BLOCK) {
            rows.clear();
            for &window in picked {
                let (image, window) = (window / windows.per_image(), window % windows.per_image());
                let image = &values[image * image_len..][..image_len];
                let channels = group * per_group..(group + 1) * per_group;
                windows.read(image, window, channels, &mut rows);
            }
            observer.observe(&rows).map_err(refused)?;
        }
    }
    Ok(())
}
