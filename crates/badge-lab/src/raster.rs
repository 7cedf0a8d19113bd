//! Drawings as PNG, for places that show no SVG.
//!
//! The face comes with the program: the same drawing gives the same bytes on every machine.

use std::sync::Arc;

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};

use crate::plot::Svg;

/// Pixels per unit of the drawing: sharp on dense screens.
const SCALE: f32 = 2.0;

/// Draws the pixels of a drawing and packs them as PNG.
///
/// # Errors
/// When the drawing is no SVG that can be drawn.
pub fn png(svg: &Svg) -> Result<Vec<u8>> {
    let mut faces = fontdb::Database::new();
    faces.load_font_data(dejavu::sans::regular().to_vec());
    faces.load_font_data(dejavu::sans::bold().to_vec());
    faces.set_sans_serif_family("DejaVu Sans");
    let options = Options {
        fontdb: Arc::new(faces),
        ..Options::default()
    };
    let tree = Tree::from_str(svg.as_str(), &options).context("a drawing that cannot be read")?;
    let size = tree.size().to_int_size().scale_by(SCALE);
    let size = size.context("a drawing without a size")?;
    let pixels = Pixmap::new(size.width(), size.height());
    let mut pixels = pixels.context("a drawing without a size")?;
    let transform = Transform::from_scale(SCALE, SCALE);
    resvg::render(&tree, transform, &mut pixels.as_mut());
    pixels
        .encode_png()
        .context("a drawing that cannot be packed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plot::{Curve, Plot};

    fn pixels(svg: &Svg) -> Pixmap {
        Pixmap::decode_png(&png(svg).unwrap()).unwrap()
    }

    #[test]
    fn a_drawing_has_its_ground_its_curve_and_its_letters() {
        let plot =
            |title| Plot::new(title, "x", "y").with(Curve::new("a", vec![(0.0, 0.0), (1.0, 1.0)]));
        let lettered = pixels(&plot("Wide letters").to_svg().unwrap());
        let bare = pixels(&plot(" ").to_svg().unwrap());
        assert_eq!((lettered.width(), lettered.height()), (1640, 960));
        let ground = lettered.pixel(3, 3).unwrap();
        assert_eq!(
            (ground.red(), ground.green(), ground.blue()),
            (255, 255, 255)
        );
        let differing = lettered
            .pixels()
            .iter()
            .zip(bare.pixels())
            .filter(|(a, b)| a != b);
        assert!(differing.count() > 500, "the title left no ink");
        let blue = |pixel: &&resvg::tiny_skia::PremultipliedColorU8| {
            (pixel.red(), pixel.green(), pixel.blue()) == (0x00, 0x72, 0xB2)
        };
        assert!(
            lettered.pixels().iter().filter(blue).count() > 500,
            "the curve left no ink"
        );
    }

    #[test]
    fn the_dark_form_has_light_ink_on_a_dark_ground() {
        let plot = Plot::new("t", "x", "y").with(Curve::new("a", vec![(0.0, 0.0), (1.0, 1.0)]));
        let svg = plot.to_svg().unwrap();
        let dark = pixels(&svg.dark());
        assert!(dark.pixel(3, 3).unwrap().red() < 40);
        let light = dark
            .pixels()
            .iter()
            .filter(|pixel| pixel.red() > 200 && pixel.blue() > 200);
        assert!(light.count() > 100, "the title is dark on dark");
    }
}
