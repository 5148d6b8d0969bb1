"""What a person types in the first hour, and what it must answer."""

from __future__ import annotations

import re

import pytest

from nst_lightning.__main__ import main

USAGE, FIT = r"^usage: nst COMMAND", r"^usage: nst fit PHOTO PAINTING"
GUESSES: tuple[tuple[str, int, str], ...] = (
    ("", 2, USAGE),
    ("help", 0, USAGE),
    ("-h", 0, USAGE),
    ("--help", 0, USAGE),
    ("--version", 0, r"^nst \d+\.\d+"),
    ("help fit", 0, FIT),
    ("fit --help", 0, FIT),
    ("fit -h", 0, FIT),
    ("fti photo.png painting.png", 2, r"unknown command 'fti'; did you mean fit\?"),
    ("draw photo.png painting.png", 2, r"unknown command 'draw'.*commands: fit, ui, film, paint"),
    ("fit", 2, r"no content image was given; name a file with --content, e\.g\. one of data/content-images"),
    ("fit photo.png", 2, r"no style image was given; name a file with --style"),
    ("fit nobody painting.png", 2, r"content image nobody is neither here nor in data/content-images"),
    ("fit photos/nobody.png painting.png", 2, r"photos/nobody\.png: cannot be opened \(No such file or directory\)"),
    ("fit photo.png painting.png --sise 3", 2, r"unknown option --sise: did you mean --size\?"),
    ("fit photo.png painting.png --iterations 20", 2, r"unknown option --iterations: did you mean --steps\?"),
    ("fit photo.png painting.png --num-iterations 20", 2, r"--num_iterations: did you mean --steps\?"),
    ("fit --content_image photo.png --style painting.png", 2, r"--content_image: did you mean --content\?"),
    ("fit --content photo.png --style_image painting.png", 2, r"--style_image: did you mean --style\?"),
    ("fit photo.png painting.png --image_size 512", 2, r"--image_size: did you mean --size\?"),
    ("fit photo.png painting.png --output_image out.png", 2, r"--output_image: did you mean --output\?"),
    ("fit photo.png painting.png --lr 1", 2, r"--lr: did you mean --model\.optimizer\.lr\?"),
    ("fit photo.png painting.png --quiet", 2, r"--quiet: did you mean --trainer\.enable_progress_bar\?"),
    ("fit photo.png painting.png --gpu 0", 2, r"--gpu: did you mean --accelerator\?"),
    ("fit photo.png painting.png --device cuda", 2, r"--device: did you mean --accelerator\?"),
    ("fit photo.png painting.png --style-weight 1e", 2, r"--style_weight must be a number, got '1e'"),
    ("fit photo.png painting.png --size 512px", 2, r"--size must be a whole number, got '512px'"),
    ("fit photo.png painting.png --size", 2, r"--size needs a value"),
    ("fit photo.png painting.png --preset gatys", 2, r"unknown preset 'gatys'; known are .*gatys2016"),
    ("fit photo.png painting.png --preset", 2, r"--preset needs one of .*study"),
    ("fit photo.png painting.png --optimizer sgd", 2, r"unknown optimizer 'sgd'; known are lbfgs, adam, pyramid"),
    ("fit photo.png painting.png --backbone vgg99", 2, r"unknown backbone 'vgg99'; known are vgg16"),
    ("fit photo.png painting.png --size 8", 2, r"image is of 4x3 px at the stage of 4 px, too small.*: 16 px a side"),
    ("fit --config nope.yaml", 2, r"nope\.yaml: No such file or directory"),
    ("fit -c painting.png", 2, r"painting\.png: does not say how it was made"),
    ("fit -c .", 2, r"\.: Is a directory"),
    ("reproduce", 2, r"no picture was given"),
    ("reproduce photo.png", 2, r"photo\.png: does not say how it was made"),
    ("completion fish", 2, r"invalid choice: .fish."),
    ("fit --resume nowhere", 2, r"nowhere: is not the folder of a run, for it has no config\.yaml"),
    ("plan", 2, r"no content image was given"),
    ("score", 2, r"no output image was given"),
    ("score photo.png", 2, r"no content image was given"),
    ("score --help", 0, r"^usage: nst score PICTURES"),
    ("inspect", 2, r"no image was given"),
    ("reconstruct", 2, r"no image was given"),
    ("reconstruct --from colour photo.png", 2, r"invalid choice: 'colour'"),
    ("validate", 2, r"no checkpoint was given"),
    ("report", 2, r"no folder was given"),
    ("report nowhere", 2, r"nowhere: is no folder"),
    ("sweep", 2, r"no file was given"),
    ("backbones vgg99", 2, r"unknown backbone 'vgg99'"),
    ("vote", 2, r"name two folders or more"),
)


@pytest.mark.parametrize(("typed", "code", "answer"), GUESSES, ids=[typed or "nothing" for typed, _, _ in GUESSES])
@pytest.mark.usefixtures("workplace")
def test_a_guess_is_answered(typed: str, code: int, answer: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(typed.split()) == code
    told = capfd.readouterr()
    said = told.out if code == 0 else told.err
    assert re.search(answer, said), said
    assert code == 0 or typed == "" or re.fullmatch(r"nst: error: [^\n]+\n", said), said
