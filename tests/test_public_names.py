"""Public names stay: what has been offered is still there. Names may be added here, and none be taken away."""

from importlib import import_module

import pytest

PUBLIC = {
    "": """
        cli compiled_solver_available diagnostics distributions estimators matching mcmc routing
    """,
    "matching": """
        Matching compiled_solver_available exchange_distances solve_matching
    """,
    "distributions": """
        Estimate GumbelMatching SkipAssignment UniformAssignment enumerate_assignments
        matching_log_prob outcome_probabilities
    """,
    "mcmc": """
        swap_and_move without_prior
    """,
    "routing": """
        BaseRouter ExpertChoiceRouter ExpertChoiceRouting GumbelMatchingRouter IndependentRouter
        LossFreeRouter QuantileBalancingRouter ROUTERS Router RouterEntry Routing SinkhornRouter
        SkipRouter SwitchRouter as_one_batch capacity_for combine dispatch draw_without_replacement
        load load_balancing_loss make_router mixture_output
    """,
    "estimators": """
        AssignmentELBO LearnedState LossCritic Network RunningMean RunningMeanState StudentExperts
        assignment_score_loss at_market_prices exact_loss leave_one_out losses_to_go score_function_loss
        shared_network
    """,
    "diagnostics": """
        AssignmentReport EstimatorTable RoutingReport UnbiasedReport VarianceComparison assignment_report
        check_all check_unbiased compare_variance routing_report
    """,
    "diagnostics.pages": """
        biases coordinates document estimators memberships routing rows section variances verdict
    """,
    "diagnostics.pictures": """
        draw_co_assignment draw_comparison draw_forest draw_routing draw_variance draw_verdicts draw_weights
        write_png
    """,
    "cli": """
        main
    """,
}


@pytest.mark.parametrize("room", PUBLIC)
def test_public_names_are_all_there(room):
    module = import_module(f"gumbel_moe.{room}".rstrip("."))
    names = PUBLIC[room].split()
    assert set(names) <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
