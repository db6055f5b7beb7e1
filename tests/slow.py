"""The tests that `make test` leaves to `make test-all`: at most a tenth of all cases.

Each row is the beginning of a node id. After a * follows a text that occurs later in the id. The tests of a row have shorter
siblings in `make test`, or check figures of the docs.
"""

SLOW = (
    # These are whole runs in processes of their own, with several kills, several hosts, the second signal or the second family.
    "tests/test_train.py::test_a_run_killed_at_random_moments_ends_with_the_same_bits",
    "tests/test_train.py::test_two_processes",
    "tests/test_stopping.py::test_two_processes",
    "tests/hosts/test_processes.py",
    "tests/test_train.py::test_a_run_asked_to_stop_saves_and_goes_on_to_the_same_bits[2]",
    "tests/test_train.py::test_a_second_run_in_a_folder_that_is_in_use_is_refused",
    "tests/test_train.py::test_a_loss_that_is_not_finite_stops_the_run_and_never_reaches_a_checkpoint",
    "tests/test_train.py::test_an_evaluation_that_a_stop_cut_off_is_made_up_for",
    "tests/test_train.py::test_a_run_killed_before_its_last_evaluation_evaluates_when_started_again",
    "tests/test_train.py::test_training_data_that_changed_are_refused",
    "tests/test_train.py::test_too_many_bad_images_stop_the_run_and_with_a_higher_share_it_goes_on_and_counts_on",
    "tests/test_train.py::test_weights_from_a_file_are_fine_tuned_and_evaluated_at_another_resolution",
    "tests/test_finished_runs.py::test_a_run_that_is_made_longer_ends_with_the_bits_of_one_that_was_as_long_from_its_first_step",
    "tests/test_written_before.py::test_a_run_is_resumed_and_ends_as_if_nothing_had_stopped_it",
    "tests/checkpoints/test_weights.py::test_a_whole_run_is_converted_with_its_averaged_parameters",
    "tests/test_configs.py::test_pre_training_with_randaugment_mixup_dropout_and_stochastic_depth_runs_on_prepared_data",
    "tests/test_trackers.py::test_a_run_sends_its_metrics_and_says_that_it_was_stopped_and_then_that_it_has_finished",
    "tests/test_notebook.py::test_the_notebook_fine_tunes_predicts_and_looks_inside",
    # Measurements.
    "tests/test_main.py::test_bench_input_ends_with_its_verdict",
    "tests/benchmarks/test_memory.py::test_a_process_of_its_own_reads_within_its_budget",
    "tests/benchmarks/test_surgery.py",
    # These are models of full size, and the families and meshes that `make test` leaves out.
    "tests/checkpoints/test_golden.py::test_logits_are_those_of_timm[mixer_l16_224]",
    "tests/checkpoints/test_golden.py::test_logits_are_those_of_timm[resnetv2_50x1_bit]",
    "tests/checkpoints/test_golden.py::test_logits_are_those_of_timm[vit_base_patch16_224]",
    "tests/checkpoints/test_surgery.py::test_at_k_times_the_side_pooled_features_are_the_mean_over_the_tiles[3",
    "tests/checkpoints/test_surgery.py::test_at_k_times_the_side_pooled_features_are_the_mean_over_the_tiles[4",
    "tests/checkpoints/test_surgery.py::test_b16_from_224_to_448_keeps_the_law_and_has_the_sizes_of_the_paper",
    "tests/checkpoints/test_weights.py::test_a_way_through_every_form_ends_with_the_same_bits[resnet]",
    "tests/checkpoints/test_weights.py::test_a_way_through_every_form_ends_with_the_same_bits[vit, mean, pre-logits]",
    "tests/checkpoints/test_weights.py::test_convert_prints_how_far_both_sides_are_apart[resnet]",
    "tests/test_export.py::test_every_family_can_be_exported_and_is_compared_as_its_users_will_load_it[stablehlo-resnet]",
    "tests/test_export.py::test_every_family_can_be_exported_and_is_compared_as_its_users_will_load_it[stablehlo-vit]",
    "tests/test_classes.py::test_weights_keep_the_names_of_their_classes_in_every_form[resnet-unnamed",
    "tests/test_classes.py::test_a_restored_heads_columns_are_those_of_our_classes[a*resnet",
    "tests/test_classes.py::test_a_restored_heads_columns_are_those_of_our_classes[without*resnet",
    "tests/test_configs.py::test_its_full_size_state_has_the_papers_parameter_count[*-L/",
    "tests/test_configs.py::test_its_full_size_state_has_the_papers_parameter_count[*-H/",
    "tests/test_export.py::test_an_exported_file_says_what_it_is[stablehlo-vit-bfloat16]",
    "tests/models/test_families.py::test_bfloat16_gives_finite_gradients_and_logits_close_to_those_of_float32[resnet]",
    "tests/models/test_families.py::test_remat_changes_neither_parameters_nor_loss_nor_gradients[resnet]",
    "tests/models/test_families.py::test_it_learns_eight_random_images_by_heart[resnet]",
    "tests/models/test_families.py::test_a_new_head_answers_its_bias_whatever_it_sees[resnet]",
    "tests/models/test_families.py::*vit",
    "tests/models/test_mixer_equations.py::test_logits_and_all_gradients_are_those_of_the_equations[no head]",
    "tests/models/test_mixer_equations.py::test_logits_and_all_gradients_are_those_of_the_equations[one token]",
    "tests/models/test_mixer_equations.py::test_logits_and_all_gradients_are_those_of_the_equations[wide image]",
    "tests/models/test_reference.py::test_the_reference_models_logits_and_gradients_are_the_models[bfloat16",
    "tests/models/test_identify.py::test_a_model_is_known_by_its_parameters[BiT-R1",
    "tests/models/test_identify.py::test_a_model_is_known_by_its_parameters[BiT-R2",
    "tests/models/test_identify.py::test_a_model_is_known_by_its_parameters[*/14 with",
    "tests/models/test_identify.py::test_a_model_is_known_by_its_parameters[*-L/",
    "tests/models/test_sizes.py::*L/",
    "tests/models/test_sizes.py::*H/",
    "tests/models/test_sizes.py::*resnet-R1",
    "tests/models/test_sizes.py::*resnet-R2",
    "tests/models/kernels/test_kernels.py::test_a_projection_of_patches_is_a_strided_convolution[bfloat16",
    "tests/models/kernels/test_kernels.py::test_a_dense_layer_is_flaxs_on_tokens_between_two_transposes[bfloat16",
    "tests/models/kernels/test_kernels.py::test_a_layer_norm_is_flaxs[bfloat16",
    "tests/models/test_mlp.py::test_a_residual_mlp_is_that_of_the_reference_model[bfloat16",
    "tests/models/test_mlp.py::*portable",
    "tests/models/test_mlp.py::*tpu",
    "tests/report/test_page.py::test_a_folder_with_any_value_changed*config.json",
    "tests/training/test_sharding.py::test_losses_do_not_depend_on_how_the_state_is_spread",
)


def is_slow(node_id: str, row: str) -> bool:
    """Return whether a row of SLOW covers this test."""
    start, _, inside = row.partition("*")
    return node_id.startswith(start) and inside in node_id[len(start) :]
