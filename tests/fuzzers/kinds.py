"""The kinds of input by their names on the command line."""

from tests.fuzzers import checkpoint_files, configuration_files, file_names, image_files, pair_lists, weight_files
from tests.fuzzers.harness import Kind, one_line

KINDS = {
    "images": Kind(image_files.inputs, image_files.feed),
    "pairs": Kind(pair_lists.inputs, pair_lists.feed),
    "configurations": Kind(configuration_files.inputs, configuration_files.feed, one_line),
    "checkpoints": Kind(checkpoint_files.inputs, checkpoint_files.feed),
    "weights": Kind(weight_files.inputs, weight_files.feed),
    "names": Kind(file_names.inputs, file_names.feed, one_line),
}
